// Must be stopped by RealtimeSanitizer: or the tests it watches prove nothing.
#include <fastrnn/fastrnn.hpp>

#include <cstdlib>

namespace {
void* volatile kept;
void callback() FASTRNN_NONBLOCKING { kept = std::malloc(16); }
}  // namespace

int main() {
  callback();
  std::free(kept);
  return 0;
}
