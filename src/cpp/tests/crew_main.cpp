// The crew's tests alone, for ThreadSanitizer (.ci/slow): it takes what the OpenMP run-time does for races.
#include "tests/check.h"

int fastrnn::tests::failures = 0;

int main() {
  fastrnn::tests::test_crew();
  return fastrnn::tests::failures != 0;
}
