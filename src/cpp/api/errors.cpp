// Versions, and what becomes of an exception.
#include <cstring>
#include <new>
#include <stdexcept>
#include <string_view>

#include "api/handles.h"
#include "file/replacing_file.h"
#include "file/text.h"
#include "registry.h"
#include "system/memory.h"
#include "threads/threads.h"

namespace fastrnn {
namespace {

// A message to a buffer of so many bytes; returns its length. One that a name or a path makes too long loses bytes of
// its middle: the argument stands at its start, the reason at its end.
size_t copy_shortened(const char* message, char* to, size_t buffer) noexcept {
  const size_t bytes = std::strlen(message);
  if (bytes < buffer) return std::memcpy(to, message, bytes + 1), bytes;
  constexpr size_t first = 200, gap = 3;
  const size_t head = shown_bytes(message, bytes, first);
  const char* rest = message + bytes - (buffer - 1 - first - gap);
  while ((static_cast<unsigned char>(*rest) & 0xC0) == 0x80) ++rest;  // not in the middle of a character
  std::memcpy(to, message, head), std::memcpy(to + head, "...", gap);
  std::memcpy(to + head + gap, rest, std::strlen(rest) + 1);
  return std::strlen(to);
}

}  // namespace

fastrnn_status report(fastrnn_error* error, fastrnn_status status, const char* message) noexcept {
  if (!error) return status;
  error->status = status;
  const std::string_view text(error->message, copy_shortened(message, error->message, sizeof error->message));
  for (size_t i = 0; (i += utf8_bytes(text.substr(i))) < text.size(); ++i) {
    error->message[i] = '?';  // a byte that is no UTF-8, of a name or a path that the message quotes
  }
  return status;
}

fastrnn_status report_current(fastrnn_error* error) noexcept {
  try {
    throw;
  } catch (const Failure& failure) {
    return report(error, failure.status, failure.message.c_str());
  } catch (const FormatError& failure) {
    return report(error, FASTRNN_FORMAT, failure.what());
  } catch (const IoError& failure) {
    return report(error, FASTRNN_IO, failure.what());
  } catch (const std::invalid_argument& failure) {  // of FASTRNN_ISA, or of what no header of a file holds
    return report(error, FASTRNN_INVALID_ARGUMENT, failure.what());
  } catch (const OutOfMemory& failure) {
    return report(error, FASTRNN_OUT_OF_MEMORY, failure.what());
  } catch (const std::bad_alloc&) {
    return report(error, FASTRNN_OUT_OF_MEMORY, "out of memory");
  } catch (const std::length_error&) {
    return report(error, FASTRNN_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& failure) {
    return report(error, FASTRNN_INTERNAL, failure.what());
  } catch (...) {
    return report(error, FASTRNN_INTERNAL, "an exception of unknown type");
  }
}

}  // namespace fastrnn

const char* fastrnn_status_name(fastrnn_status status) noexcept {
  static const char* const names[] = {"ok",           "invalid argument", "out of memory",  "input or output failed",
                                      "wrong format", "not ready",        "internal error", "full"};
  return status >= 0 && status <= FASTRNN_FULL ? names[status] : "unknown status";
}

const char* fastrnn_version(void) noexcept { return FASTRNN_VERSION; }
int32_t fastrnn_abi(void) noexcept { return FASTRNN_ABI; }
int32_t fastrnn_available_threads(void) noexcept { return fastrnn::available_threads(); }

const char* fastrnn_isa(void) noexcept {
  try {
    return fastrnn::current_backend().name;
  } catch (...) {
    return nullptr;
  }
}
