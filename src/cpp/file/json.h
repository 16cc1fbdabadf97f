// Just as much JSON as the header of a safetensors file holds: objects, arrays, strings and whole numbers, read one
// token at a time from bytes nobody vouches for. Nothing recurses; nothing is read past the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace fastrnn {

// A file is not what it should be.
struct FormatError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class JsonReader {
 public:
  JsonReader(const char* text, size_t bytes) : begin_(text), at_(text), end_(text + bytes) {}

  // Skips blanks; takes `c` and returns true, or leaves it and returns false.
  bool take(char c);
  void expect(char c);
  void expect_end();
  std::string string();             // valid UTF-8, without a zero byte
  int64_t integer();                // 0 to 2^63 - 1, as JSON writes it
  std::vector<int64_t> integers();  // an array of them
  [[noreturn]] void fail(const std::string& what) const;

 private:
  void skip_blanks();
  char next();
  void escape(std::string& text);
  unsigned hex4();

  const char *begin_, *at_, *end_;
};

std::string json_quoted(const std::string& text);

}  // namespace fastrnn
