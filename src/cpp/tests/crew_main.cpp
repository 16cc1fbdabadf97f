// The tests of threads that know no network, for ThreadSanitizer (.ci/slow): it takes what the OpenMP run-time does
// for races.
#include "tests/check.h"

int fastrnn::tests::failures = 0;

int main() {
  fastrnn::tests::test_crew();
  fastrnn::tests::test_wavefront();
  return fastrnn::tests::failures != 0;
}
