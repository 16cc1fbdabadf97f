// Text of others, in files and in messages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace fastrnn {

// How many of the text's bytes are UTF-8, from its start: all of them, or those before the first that is not.
size_t utf8_bytes(std::string_view text);

// What a message shows of a text: at most `most` bytes of it, up to the end of a character.
size_t shown_bytes(const char* text, size_t bytes, size_t most);
std::string shown(const std::string& text, size_t most);

// What a message calls a shape: "[3, 4]". At most `most` sizes of it, since a file may say thousands.
template <class Size>
std::string shape_text(const Size* sizes, size_t n, size_t most = SIZE_MAX) {
  std::string text = "[";
  for (size_t i = 0; i < n && i < most; ++i) text += (i ? ", " : "") + std::to_string(sizes[i]);
  return text + (n > most ? ", ...]" : "]");
}

}  // namespace fastrnn
