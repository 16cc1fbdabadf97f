// A plug-in's host: loads the library, has it compute on two threads, unloads it, and lives on, five times. It is not
// linked against the library, nor against the OpenMP run-time whose idle threads it would outlive.
#include <dlfcn.h>
#include <fastrnn/fastrnn.h>

#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

namespace {

template <class Function>
Function* found(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

#define CALL(name) found<decltype(name)>(library, #name)

bool computes(void* library) {
  fastrnn_config config;
  CALL(fastrnn_config_default)(&config);
  config.input_size = config.hidden_size = 64;
  fastrnn_layer* layer = nullptr;
  bool ok = CALL(fastrnn_layer_create)(&config, &layer, nullptr) == FASTRNN_OK;
  const std::vector<float> values(4 * 64 * 64, 0.01F);
  for (const char* const name : {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}) {
    const size_t count = name[0] == 'w' ? 4 * 64 * 64 : 4 * 64;
    ok = ok && CALL(fastrnn_layer_set)(layer, name, values.data(), count, nullptr) == FASTRNN_OK;
  }
  ok = ok && CALL(fastrnn_layer_prepare)(layer, 2, nullptr) == FASTRNN_OK;
  std::vector<float> x(50 * 32 * 64, 0.1F), y(50 * 32 * 64);
  fastrnn_sequence s = {};
  s.size = sizeof s, s.steps = 50, s.batch = 32, s.threads = 2;
  s.x = x.data(), s.x_step = 32 * 64, s.x_row = 64, s.y = y.data(), s.y_step = 32 * 64, s.y_row = 64;
  fastrnn_tape* tape = nullptr;  // the forward pass of training has its threads from OpenMP
  ok = ok && CALL(fastrnn_layer_forward)(layer, &s, &tape, nullptr) == FASTRNN_OK;
  CALL(fastrnn_tape_free)(tape);
  CALL(fastrnn_layer_free)(layer);
  return ok;
}

}  // namespace

int main(int, char** arguments) {
  for (int i = 0; i < 5; ++i) {
    void* const library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    if (!library || !computes(library)) return std::printf("%s\n", library ? "it failed" : dlerror()), 1;
    dlclose(library);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return 0;
}
