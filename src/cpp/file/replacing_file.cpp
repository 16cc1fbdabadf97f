#include "file/replacing_file.h"

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <random>
#include <system_error>

#if defined(_WIN32)
#include <io.h>
#else
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace fastrnn {
namespace {

namespace fs = std::filesystem;

constexpr int kMostLinks = 40;  // one behind the other, as Linux has it

// A new file with the mode of what it replaces, if there is any: nobody may read meanwhile who may not later. Null
// where there is such a file already.
std::FILE* open_new(const fs::path& path, const fs::file_status& old) {
#if defined(_WIN32)
  std::FILE* const file = _wfopen(path.c_str(), L"wbx");
  std::error_code failed;
  if (file && fs::exists(old)) fs::permissions(path, old.permissions(), failed);
  return file;
#else
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, fs::exists(old) ? 0600 : 0666);
  if (descriptor < 0) return nullptr;
  if (fs::exists(old)) (void)!fchmod(descriptor, mode_t(old.permissions()));  // some file systems have no modes
  std::FILE* const file = fdopen(descriptor, "wb");
  if (!file) (void)close(descriptor), (void)unlink(path.c_str());
  return file;
#endif
}

bool to_disk(std::FILE* file) {
  if (std::fflush(file)) return false;
#if defined(_WIN32)
  return _commit(_fileno(file)) == 0;
#else
  return fsync(fileno(file)) == 0;
#endif
}

// Not the target's name and more: that may be as long as a file system takes.
std::string random_name() {
  static const char digits[] = "0123456789abcdef";
  std::random_device source;
  std::string name = "fastrnn-";
  for (int i = 0; i < 4; ++i) {
    for (uint32_t bits = source(), n = 0; n < 4; ++n, bits >>= 4) name += digits[bits & 15];
  }
  return name + ".tmp";
}

}  // namespace

ReplacingFile::ReplacingFile(const std::string& path) : path_(path) {
  if (path.empty()) fail("expected the name of a file");
  std::error_code failed;
  target_ = fs::u8path(path);
  for (int links = 0; links < kMostLinks && fs::is_symlink(fs::symlink_status(target_, failed)); ++links) {
    target_ = target_.parent_path() / fs::read_symlink(target_, failed);
  }
  if (fs::is_symlink(fs::symlink_status(target_, failed))) fail("links that lead to each other");
  const fs::file_status old = fs::status(target_, failed);
  if (fs::exists(old) && !fs::is_regular_file(old)) fail("what is there is no file");
  beside_ = target_.parent_path() / random_name();
  errno = 0;
  file_ = open_new(beside_, old);
  if (!file_) fail(std::strerror(errno));
}

void ReplacingFile::write(const void* data, size_t bytes) {
  if (bytes && std::fwrite(data, 1, bytes, file_) != bytes) fail(std::strerror(errno));
}

void ReplacingFile::commit() {
  if (!to_disk(file_)) fail(std::strerror(errno));
  const bool closed = std::fclose(file_) == 0;
  file_ = nullptr;
  if (!closed) fail(std::strerror(errno));
  std::error_code failed;
  fs::rename(beside_, target_, failed);
  if (failed) fail(failed.message());
  beside_.clear();
}

ReplacingFile::~ReplacingFile() {
  if (file_) std::fclose(file_);
  std::error_code ignored;
  if (!beside_.empty()) fs::remove(beside_, ignored);
}

void ReplacingFile::fail(const std::string& reason) const {
  throw IoError("path: cannot write '" + path_ + "': " + reason);
}

}  // namespace fastrnn
