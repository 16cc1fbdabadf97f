// An error that says so, and pointers that earn one.
#pragma once

#include <cstring>

#include "tests/api_check.h"

namespace fastrnn::tests {

template <class Value>
void refused(const Result<Value>& result, Status status, const char* text) {
  CHECK(!result, "accepted, expected: %s", text);
  if (result) return;
  CHECK(result.error().status() == status, "%s, not %s: %s", name(result.error().status()), name(status), text);
  CHECK(std::strstr(result.error().message(), text), "'%s' has no '%s'", result.error().message(), text);
}

template <class T>
T* odd(T* pointer) {
  return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(pointer) + 1);
}

}  // namespace fastrnn::tests
