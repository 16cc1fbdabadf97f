// A safetensors file: 8 bytes of header length, little-endian; a header of JSON; the bytes of the tensors. Every rule
// of the format is checked before anything is believed: what was parsed without an error can be read without a check.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "file/json.h"
#include "system/memory.h"

namespace fastrnn {

constexpr uint64_t kMostHeaderBytes = 100000000;  // as the reference implementation has it

struct StoredTensor {
  std::string name, dtype;
  std::vector<int64_t> shape;
  uint64_t begin, end;  // bytes, from the start of the data

  uint64_t bytes() const { return end - begin; }
  bool half() const { return dtype == "F16" || dtype == "BF16"; }  // which F32 holds exactly
};

class Safetensors {
 public:
  // Both throw FormatError, the first IoError as well. path: UTF-8.
  static Safetensors open(const std::string& path);
  static Safetensors parse(const char* file, size_t bytes);

  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // by begin
  const StoredTensor* find(const std::string& name) const;               // null: there is none
  const char* data(const StoredTensor& tensor) const { return data_.data() + tensor.begin; }
  // Its values, halves as F32, the others as they are. to: perhaps not aligned.
  void copy(const StoredTensor& tensor, void* to) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  template <class Read>
  static Safetensors of(uint64_t file_bytes, Read read);
  void read_header(const char* header, size_t bytes, uint64_t data_bytes);
  void check_layout(uint64_t data_bytes) const;

  std::vector<StoredTensor> tensors_;
  std::map<std::string, size_t> by_name_;
  std::map<std::string, std::string> metadata_;
  Block data_;
};

struct TensorToWrite {
  std::string name;
  const char* dtype;
  std::vector<int64_t> shape;
  const void* data;
  size_t bytes;
};

// What a file begins with; the bytes of the tensors follow, in the order that this brings them into. Throws
// std::invalid_argument where nobody could read it.
std::string safetensors_head(const std::map<std::string, std::string>& metadata, std::vector<TensorToWrite>& tensors);

}  // namespace fastrnn
