#include <cstring>

#include "registry.h"
#include "tests/check.h"

int fastrnn::tests::failures = 0;

int main(int argc, char** argv) {
  using namespace fastrnn::tests;
  if (argc > 1 && std::strcmp(argv[1], "--bits") == 0) {
    print_bits();
    return 0;
  }
  for (const std::string& name : fastrnn::usable_isas()) std::printf("isa %s\n", name.c_str());
  test_gradients();
  test_bits();
  test_plan();
  test_crew();
  test_wavefront();
  test_memory();
  test_quota();
  test_stream();
  test_pool();
  test_bf16();
  test_bf16_pairs();
  test_unpacked();
  std::printf(failures ? "%d checks failed\n" : "all passed\n", failures);
  return failures != 0;
}
