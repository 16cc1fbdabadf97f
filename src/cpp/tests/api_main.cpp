#include "tests/api_check.h"

int fastrnn::tests::failures = 0;

std::string fastrnn::tests::scratch_file(const char* name) { return std::string("fastrnn_api_tests_") + name; }

int main() {
  using namespace fastrnn::tests;
  CHECK(fastrnn::abi_matches(), "ABI of header and library");
  std::printf("fastrnn %s, isa %s, %d threads\n", fastrnn::version(), fastrnn::isa(),
              int(fastrnn::available_threads()));
  test_api();
  test_pool_api();
  test_errors();
  test_more_errors();
  test_real_time();
  test_files();
  test_loading();
  test_halves();
  test_saving();
  test_states();
  test_strides();
  test_mutations();
  test_out_of_memory();
  std::printf(failures ? "%d checks failed\n" : "all passed\n", failures);
  return failures != 0;
}
