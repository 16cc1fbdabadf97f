// Just as much JSON as the header of a safetensors file holds: objects, arrays, strings and whole numbers, read one
// token at a time from bytes nobody vouches for. Nothing recurses; nothing is read past the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
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

// How many of the text's bytes are UTF-8, from its start: all of them, or those before the first that is not.
size_t utf8_bytes(std::string_view text);
// What a message shows of a text: at most `most` bytes of it, up to the end of a character.
size_t shown_bytes(const char* text, size_t bytes, size_t most);
std::string shown(const std::string& text, size_t most);

}  // namespace fastrnn
