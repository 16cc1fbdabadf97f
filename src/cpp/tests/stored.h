// Files of weights, put together by hand.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fastrnn::tests {

using Bytes = std::vector<unsigned char>;

inline Bytes with_length(const std::string& header, uint64_t length, size_t data_bytes) {
  Bytes file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<unsigned char>(length >> (8 * i)));
  file.insert(file.end(), header.begin(), header.end());
  for (size_t i = 0; i < data_bytes; ++i) file.push_back(static_cast<unsigned char>(i));
  return file;
}

inline Bytes file_of(const std::string& header, size_t data_bytes) {
  return with_length(header, header.size(), data_bytes);
}

inline std::string tensor(const char* name, const char* dtype, const char* shape, const char* offsets) {
  return std::string("\"") + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape + "],\"data_offsets\":[" +
         offsets + "]}";
}

}  // namespace fastrnn::tests
