#include "wav.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace {

constexpr uint16_t kPcm = 1, kFloat = 3, kExtensible = 0xFFFE;

[[noreturn]] void fail(const std::string& path, const std::string& reason) {
  throw std::runtime_error(path + ": " + reason);
}

// A piece of the file. It gives out pieces of itself and numbers, and nothing from beyond its end.
class Bytes {
 public:
  Bytes(const std::string& path, const uint8_t* begin, size_t size) : path_(path), begin_(begin), size_(size) {}

  size_t size() const { return size_; }
  const uint8_t* data() const { return begin_; }

  Bytes take(size_t count, const char* what) {
    if (count > size_)
      fail(path_, std::string(what) + ": expected " + std::to_string(count) + " bytes, the file has " +
                      std::to_string(size_) + " more");
    Bytes taken(path_, begin_, count);
    begin_ += count;
    size_ -= count;
    return taken;
  }

  // Four characters; what cannot be printed is a question mark.
  std::string tag(const char* what) {
    Bytes four = take(4, what);
    std::string text(four.begin_, four.begin_ + 4);
    for (char& c : text)
      if (c < ' ' || c > '~') c = '?';
    return text;
  }

  // Little-endian.
  uint32_t number(size_t bytes, const char* what) {
    Bytes taken = take(bytes, what);
    uint32_t value = 0;
    for (size_t n = 0; n < bytes; n++) value |= uint32_t(taken.begin_[n]) << (8 * n);
    return value;
  }

 private:
  const std::string& path_;
  const uint8_t* begin_;
  size_t size_;
};

struct Format {
  uint16_t kind = 0, channels = 0, bits = 0;
  uint32_t rate = 0;
};

Format read_format(const std::string& path, Bytes chunk) {
  Format format;
  format.kind = uint16_t(chunk.number(2, "format"));
  format.channels = uint16_t(chunk.number(2, "channels"));
  format.rate = chunk.number(4, "rate");
  chunk.take(6, "bytes a second and a frame");  // follow from the others
  format.bits = uint16_t(chunk.number(2, "bits"));
  if (format.kind == kExtensible) {
    chunk.take(8, "size, valid bits and speakers of the extensible format");
    format.kind = uint16_t(chunk.number(2, "format of the extensible format"));
  }
  bool known = (format.kind == kPcm && (format.bits == 16 || format.bits == 24 || format.bits == 32)) ||
               (format.kind == kFloat && format.bits == 32);
  if (!known)
    fail(path, "expected integers of 16, 24 or 32 bits or floats of 32, got format " + std::to_string(format.kind) +
                   " with " + std::to_string(format.bits) + " bits");
  if (format.channels < 1 || format.channels > 64)
    fail(path, "expected 1 to 64 channels, got " + std::to_string(format.channels));
  if (format.rate < 1) fail(path, "expected a rate above 0");
  return format;
}

float sample(const uint8_t* bytes, const Format& format) {
  uint32_t bits = 0;  // the sample's bytes at the top, so that its sign is the sign
  for (int n = 0; n < format.bits / 8; n++) bits |= uint32_t(bytes[n]) << (32 - format.bits + 8 * n);
  if (format.kind == kFloat) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  int32_t integer;
  std::memcpy(&integer, &bits, sizeof integer);
  return float(integer) / 2147483648.0f;
}

void put(std::vector<char>& out, uint32_t value, int bytes) {
  for (int n = 0; n < bytes; n++) out.push_back(char(value >> (8 * n)));
}

void put(std::vector<char>& out, const char* tag) { out.insert(out.end(), tag, tag + 4); }

}  // namespace

Wav read_wav(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> content{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file) fail(path, "cannot be read");
  Bytes bytes(path, reinterpret_cast<const uint8_t*>(content.data()), content.size());
  if (bytes.tag("RIFF header") != "RIFF") fail(path, "expected a WAV file: it does not begin with RIFF");
  bytes.take(4, "RIFF header");  // the file's size, which many programs get wrong
  if (bytes.tag("RIFF header") != "WAVE") fail(path, "expected a WAV file: the RIFF form is not WAVE");

  Format format;
  for (;;) {
    if (bytes.size() < 8) fail(path, format.channels ? "no data chunk" : "no fmt chunk");
    std::string tag = bytes.tag("chunk");
    uint32_t size = bytes.number(4, "chunk");
    Bytes chunk = bytes.take(size, ("chunk '" + tag + "'").c_str());
    if (size % 2 && bytes.size()) bytes.take(1, "padding");
    if (tag == "fmt ") format = read_format(path, chunk);
    if (tag != "data") continue;
    if (!format.channels) fail(path, "data before the fmt chunk");
    size_t width = format.bits / 8u, frames = size / width / format.channels;
    Wav wav{format.rate, format.channels, std::vector<float>(frames * format.channels)};
    for (size_t n = 0; n < wav.samples.size(); n++) wav.samples[n] = sample(chunk.data() + n * width, format);
    return wav;
  }
}

void write_wav(const std::string& path, const Wav& wav) {
  uint64_t size = uint64_t(wav.samples.size()) * 4;
  if (size > 0xFFFFFFFFu - 50) fail(path, "expected less than 4 GiB of samples");
  std::vector<char> out;
  out.reserve(size_t(size) + 58);
  put(out, "RIFF"), put(out, uint32_t(size) + 50, 4), put(out, "WAVE");
  put(out, "fmt "), put(out, 18, 4), put(out, kFloat, 2), put(out, wav.channels, 2), put(out, wav.rate, 4);
  put(out, wav.rate * wav.channels * 4, 4), put(out, wav.channels * 4u, 2), put(out, 32, 2), put(out, 0, 2);
  put(out, "fact"), put(out, 4, 4), put(out, uint32_t(wav.frames()), 4);
  put(out, "data"), put(out, uint32_t(size), 4);
  for (float value : wav.samples) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    put(out, bits, 4);
  }
  std::ofstream file(path, std::ios::binary);
  file.write(out.data(), std::streamsize(out.size()));
  if (!file.flush()) fail(path, "cannot be written");
}
