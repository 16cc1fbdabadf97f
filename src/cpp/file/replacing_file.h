// A file that takes the place of another, or of none, once it is complete.
#pragma once

#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace fastrnn {

// The operating system could not do it.
struct IoError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Written beside its place under a name that nobody else has, so that another writer, a reader, a full disk or a crash
// meet the old file or the new one, whole. A link stays a link; the mode is that of what is replaced.
class ReplacingFile {
 public:
  // All throw IoError. path: UTF-8.
  explicit ReplacingFile(const std::string& path);
  void write(const void* data, size_t bytes);
  void commit();
  ReplacingFile(const ReplacingFile&) = delete;
  ReplacingFile& operator=(const ReplacingFile&) = delete;
  ~ReplacingFile();  // removes what was not committed

 private:
  [[noreturn]] void fail(const std::string& reason) const;

  std::string path_;
  std::filesystem::path target_, beside_;
  std::FILE* file_ = nullptr;
};

}  // namespace fastrnn
