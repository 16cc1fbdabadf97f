#include "file/json.h"

#include "file/text.h"

namespace fastrnn {
namespace {

void append_utf8(std::string& text, unsigned code) {
  if (code < 0x80) {
    text += char(code);
  } else if (code < 0x800) {
    text += {char(0xC0 | code >> 6), char(0x80 | (code & 63))};
  } else if (code < 0x10000) {
    text += {char(0xE0 | code >> 12), char(0x80 | (code >> 6 & 63)), char(0x80 | (code & 63))};
  } else {
    text += {char(0xF0 | code >> 18), char(0x80 | (code >> 12 & 63)), char(0x80 | (code >> 6 & 63)),
             char(0x80 | (code & 63))};
  }
}

}  // namespace

void JsonReader::fail(const std::string& what) const {
  throw FormatError("header: " + what + " at byte " + std::to_string(at_ - begin_));
}

void JsonReader::skip_blanks() {
  while (at_ < end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) ++at_;
}

bool JsonReader::take(char c) {
  skip_blanks();
  if (at_ == end_ || *at_ != c) return false;
  ++at_;
  return true;
}

void JsonReader::expect(char c) {
  if (!take(c)) fail(std::string("expected '") + c + "'");
}

void JsonReader::expect_end() {
  skip_blanks();
  if (at_ != end_) fail("expected its end");
}

char JsonReader::next() {
  if (at_ == end_) fail("expected more, found its end");
  return *at_++;
}

unsigned JsonReader::hex4() {
  unsigned code = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = next();
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) fail("expected four hexadecimal digits");
    code = code * 16 + unsigned(digit);
  }
  return code;
}

void JsonReader::escape(std::string& text) {
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  const char c = next();
  for (int i = 0; from[i]; ++i) {
    if (c == from[i]) return (void)(text += to[i]);
  }
  if (c != 'u') fail("unknown escape in a string");
  unsigned code = hex4();
  if (code >= 0xD800 && code < 0xDC00) {
    if (next() != '\\' || next() != 'u') fail("expected the second half of a surrogate pair");
    const unsigned low = hex4();
    if (low < 0xDC00 || low > 0xDFFF) fail("expected the second half of a surrogate pair");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  } else if (code >= 0xDC00 && code < 0xE000) {
    fail("a lone surrogate in a string");
  }
  append_utf8(text, code);
}

std::string JsonReader::string() {
  expect('"');
  std::string text;
  for (char c = next(); c != '"'; c = next()) {
    if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a string");
    if (c == '\\') {
      escape(text);
    } else {
      text += c;
    }
  }
  if (utf8_bytes(text) != text.size()) fail("a string that is not UTF-8");
  if (text.find('\0') != std::string::npos) fail("a zero byte in a string");
  return text;
}

int64_t JsonReader::integer() {
  skip_blanks();
  const char* const first = at_;
  int64_t value = 0;
  for (; at_ < end_ && *at_ >= '0' && *at_ <= '9'; ++at_) {
    const int digit = *at_ - '0';
    if (value > (INT64_MAX - digit) / 10) fail("a number above 2^63 - 1");
    value = value * 10 + digit;
  }
  if (at_ == first) fail("expected a whole number, not negative");
  if (*first == '0' && at_ - first > 1) fail("a number with a leading zero");
  if (at_ < end_ && (*at_ == '.' || *at_ == 'e' || *at_ == 'E')) fail("expected a whole number");
  return value;
}

std::vector<int64_t> JsonReader::integers() {
  std::vector<int64_t> values;
  expect('[');
  if (take(']')) return values;
  do values.push_back(integer());
  while (take(','));
  expect(']');
  return values;
}

std::string json_quoted(const std::string& text) {
  static const char hex[] = "0123456789abcdef";
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      quoted += std::string("\\u00") + hex[c >> 4] + hex[c & 15];
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

}  // namespace fastrnn
