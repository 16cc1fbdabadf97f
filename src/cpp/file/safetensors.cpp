#include "file/safetensors.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <system_error>

#include "file/replacing_file.h"
#include "file/text.h"

namespace fastrnn {
namespace {

namespace fs = std::filesystem;

// Bytes of an element; 0: not a dtype of the format, or one of less than a byte, which no layer reads.
uint64_t element_bytes(const std::string& dtype) {
  struct Size {
    const char* dtype;
    uint64_t bytes;
  };
  static constexpr Size sizes[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"F8_E8M0", 1},
                                   {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},     {"U32", 4},
                                   {"F32", 4},  {"F64", 8}, {"I64", 8}, {"U64", 8},     {"C64", 8}};
  for (const Size& size : sizes) {
    if (dtype == size.dtype) return size.bytes;
  }
  return 0;
}

std::string name_text(const std::string& name) { return "tensor '" + shown(name, 200) + "'"; }

uint64_t bytes_of(const StoredTensor& t) {
  uint64_t bytes = element_bytes(t.dtype);
  if (!bytes) throw FormatError(name_text(t.name) + ": unknown dtype '" + shown(t.dtype, 32) + "'");
  for (const int64_t n : t.shape) {
    if (n && bytes > UINT64_MAX / uint64_t(n))
      throw FormatError(name_text(t.name) + ": its shape has more than 2^64 bytes");
    bytes *= uint64_t(n);
  }
  return bytes;
}

StoredTensor read_tensor(JsonReader& json, std::string name) {
  StoredTensor tensor = {std::move(name), "", {}, 0, 0};
  bool has_dtype = false, has_shape = false, has_offsets = false;
  json.expect('{');
  do {
    const std::string key = json.string();
    json.expect(':');
    const auto once = [&](bool& has) {
      if (has) json.fail("'" + key + "' a second time");
      has = true;
    };
    if (key == "dtype") {
      once(has_dtype);
      tensor.dtype = json.string();
    } else if (key == "shape") {
      once(has_shape);
      tensor.shape = json.integers();
    } else if (key == "data_offsets") {
      once(has_offsets);
      const std::vector<int64_t> offsets = json.integers();
      if (offsets.size() != 2) json.fail("expected two data_offsets");
      tensor.begin = uint64_t(offsets[0]), tensor.end = uint64_t(offsets[1]);
    } else {
      json.fail("expected dtype, shape or data_offsets, found '" + shown(key, 64) + "'");
    }
  } while (json.take(','));
  json.expect('}');
  if (!has_dtype || !has_shape || !has_offsets) {
    throw FormatError(name_text(tensor.name) + ": expected dtype, shape and data_offsets");
  }
  return tensor;
}

void read_metadata(JsonReader& json, std::map<std::string, std::string>& metadata) {
  json.expect('{');
  if (json.take('}')) return;
  do {
    std::string key = json.string();
    json.expect(':');
    if (!metadata.emplace(key, json.string()).second) json.fail("metadata '" + shown(key, 64) + "' a second time");
  } while (json.take(','));
  json.expect('}');
}

uint64_t little_endian(const char* bytes, int count) {
  uint64_t value = 0;
  for (int i = count - 1; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// binary16: 5 bits of exponent, 10 of fraction.
float of_binary16(uint32_t half) {
  const uint32_t sign = (half & 0x8000) << 16, rest = (half & 0x7fff) << 13, exponent = half >> 10 & 31;
  if (exponent == 31) return float_of(sign | 0x7f800000 | rest);                            // infinity, NaN
  if (exponent == 0) return std::copysign(float(half & 0x3ff) * 0x1p-24f, float_of(sign));  // zero, denormal
  return float_of(sign | (rest + ((127 - 15) << 23)));
}

constexpr size_t kLengthBytes = 8;

// Bytes of the header of a file of so many, of which `length` are the first.
size_t header_bytes(const char* length, uint64_t file_bytes) {
  const uint64_t header = little_endian(length, kLengthBytes), left = file_bytes - kLengthBytes;
  if (header > kMostHeaderBytes) {
    throw FormatError("header: expected at most " + std::to_string(kMostHeaderBytes) + " bytes, its length says " +
                      std::to_string(header));
  }
  if (header > left) {
    throw FormatError("header: its length says " + std::to_string(header) + " bytes, the file has " +
                      std::to_string(left) + " left");
  }
  return size_t(header);
}

}  // namespace

// read(to, bytes): the next bytes of a file of so many.
template <class Read>
Safetensors Safetensors::of(uint64_t file_bytes, Read read) {
  if (file_bytes < kLengthBytes) throw FormatError("expected at least 8 bytes, got " + std::to_string(file_bytes));
  char length[kLengthBytes];
  read(length, kLengthBytes);
  std::string header(header_bytes(length, file_bytes), '\0');
  read(header.data(), header.size());
  Safetensors file;
  const uint64_t data_bytes = file_bytes - kLengthBytes - header.size();
  file.read_header(header.data(), header.size(), data_bytes);
  if (data_bytes > uint64_t(PTRDIFF_MAX)) throw OutOfMemory(size_t(PTRDIFF_MAX));
  file.data_ = Block(size_t(data_bytes));
  read(file.data_.data(), size_t(data_bytes));
  return file;
}

Safetensors Safetensors::parse(const char* file, size_t bytes) {
  return of(bytes, [&](char* to, size_t count) {
    if (count) std::memcpy(to, file, count);
    file += count;
  });
}

Safetensors Safetensors::open(const std::string& path) {
  const fs::path where = fs::u8path(path);
  std::error_code failed;
  const bool regular = fs::is_regular_file(where, failed);
  if (failed) throw IoError("path: cannot open '" + path + "': " + failed.message());
  if (!regular) throw IoError("path: expected a file, '" + path + "' is none");
  std::ifstream stream(where, std::ios::binary | std::ios::ate);
  if (!stream) throw IoError("path: cannot open '" + path + "': " + std::strerror(errno));
  const std::streamoff bytes = stream.tellg();
  if (bytes < 0) throw IoError("path: cannot tell the size of '" + path + "'");
  stream.seekg(0);
  try {
    return of(uint64_t(bytes), [&](char* to, size_t count) {
      if (!stream.read(to, std::streamsize(count))) throw IoError("path: cannot read '" + path + "'");
    });
  } catch (const FormatError& wrong) {  // of bytes, wherever they are
    throw FormatError("path: '" + path + "' is not a valid safetensors file: " + wrong.what());
  }
}

void Safetensors::read_header(const char* header, size_t bytes, uint64_t data_bytes) {
  if (!bytes || header[0] != '{') throw FormatError("header: expected it to begin with '{'");
  JsonReader json(header, bytes);
  json.expect('{');
  bool has_metadata = false;
  if (!json.take('}')) {
    do {
      std::string name = json.string();
      json.expect(':');
      if (name == "__metadata__") {
        if (has_metadata) json.fail("'__metadata__' a second time");
        has_metadata = true;
        read_metadata(json, metadata_);
      } else {
        tensors_.push_back(read_tensor(json, std::move(name)));
      }
    } while (json.take(','));
    json.expect('}');
  }
  json.expect_end();
  std::stable_sort(tensors_.begin(), tensors_.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (!by_name_.emplace(tensors_[i].name, i).second)
      throw FormatError(name_text(tensors_[i].name) + ": a second time");
  }
  check_layout(data_bytes);
}

void Safetensors::check_layout(uint64_t data_bytes) const {
  uint64_t end = 0;
  for (const StoredTensor& t : tensors_) {
    const std::string where = name_text(t.name) + ": bytes " + std::to_string(t.begin) + " to " + std::to_string(t.end);
    if (t.end < t.begin) throw FormatError(where + " end before they begin");
    if (t.end > data_bytes)
      throw FormatError(where + " of " + std::to_string(data_bytes) + ": past the end of the file");
    if (t.begin < end) throw FormatError(where + " overlap the tensor before, which ends at " + std::to_string(end));
    if (t.begin > end) throw FormatError(where + " leave a hole after " + std::to_string(end));
    if (t.bytes() != bytes_of(t)) {
      throw FormatError(where + ", but its shape has " + std::to_string(bytes_of(t)) + " bytes");
    }
    end = t.end;
  }
  if (end != data_bytes) {
    throw FormatError("the tensors end at byte " + std::to_string(end) + ", the file's data at " +
                      std::to_string(data_bytes));
  }
}

const StoredTensor* Safetensors::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

void Safetensors::copy(const StoredTensor& tensor, void* to) const {
  const char* const from = data(tensor);
  if (!tensor.half()) {
    if (tensor.bytes()) std::memcpy(to, from, size_t(tensor.bytes()));
    return;
  }
  const bool upper = tensor.dtype == "BF16";  // the upper half of an F32
  for (size_t i = 0; i < tensor.bytes() / 2; ++i) {
    const uint32_t half = uint32_t(little_endian(from + 2 * i, 2));
    const float value = upper ? float_of(half << 16) : of_binary16(half);
    std::memcpy(static_cast<char*>(to) + sizeof value * i, &value, sizeof value);
  }
}

std::string safetensors_head(const std::map<std::string, std::string>& metadata, std::vector<TensorToWrite>& tensors) {
  // Larger elements first, so that each tensor is aligned.
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorToWrite& a, const TensorToWrite& b) {
    return element_bytes(a.dtype) > element_bytes(b.dtype);
  });
  std::string header = "{\"__metadata__\":{";
  for (const auto& [key, value] : metadata) {
    header += (header.back() == '{' ? "" : ",") + json_quoted(key) + ':' + json_quoted(value);
  }
  header += '}';
  uint64_t begin = 0;
  for (const TensorToWrite& t : tensors) {
    header += ',' + json_quoted(t.name) + ":{\"dtype\":\"" + t.dtype + "\",\"shape\":[";
    for (size_t i = 0; i < t.shape.size(); ++i) header += (i ? "," : "") + std::to_string(t.shape[i]);
    header += "],\"data_offsets\":[" + std::to_string(begin) + ',' + std::to_string(begin + t.bytes) + "]}";
    begin += t.bytes;
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');  // the data begin at a multiple of 8 bytes
  if (header.size() > kMostHeaderBytes) {           // nobody could read it
    throw std::invalid_argument("prefix, metadata: expected text that fits a header of " +
                                std::to_string(kMostHeaderBytes) + " bytes, got " + std::to_string(header.size()));
  }
  std::string length;
  for (size_t i = 0; i < kLengthBytes; ++i) length += char(uint64_t(header.size()) >> (8 * i) & 255);
  return length + header;
}

}  // namespace fastrnn
