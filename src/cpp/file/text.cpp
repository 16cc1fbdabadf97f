#include "file/text.h"

namespace fastrnn {

// Shortest forms only, no surrogates, nothing above U+10FFFF (The Unicode Standard, table 3-7).
size_t utf8_bytes(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const int more = lead < 0x80 ? 0 : lead >= 0xC2 && lead < 0xE0 ? 1 : lead >= 0xE0 && lead < 0xF0 ? 2 : 3;
    if (more == 3 && (lead < 0xF0 || lead > 0xF4)) return i;
    if (text.size() - i <= size_t(more)) return i;
    for (int k = 1; k <= more; ++k) {
      const auto byte = static_cast<unsigned char>(text[i + size_t(k)]);
      unsigned low = 0x80, high = 0xBF;
      if (k == 1) {
        if (lead == 0xE0) low = 0xA0;
        if (lead == 0xED) high = 0x9F;
        if (lead == 0xF0) low = 0x90;
        if (lead == 0xF4) high = 0x8F;
      }
      if (byte < low || byte > high) return i;
    }
    i += size_t(more) + 1;
  }
  return i;
}

size_t shown_bytes(const char* text, size_t bytes, size_t most) {
  if (bytes <= most) return bytes;
  while (most && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80) --most;  // not in the middle of a character
  return most;
}

std::string shown(const std::string& text, size_t most) {
  return text.substr(0, shown_bytes(text.data(), text.size(), most));
}

}  // namespace fastrnn
