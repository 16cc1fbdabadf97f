// WAV files of 16, 24 or 32 bit integers or 32 bit floats, read whole; 32 bit floats written.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct Wav {
  uint32_t rate = 0;           // frames a second
  uint16_t channels = 0;       // C
  std::vector<float> samples;  // [frames, C], full scale of integers being -1..1

  size_t frames() const { return samples.size() / channels; }
};

// Both throw std::runtime_error with the path and the reason. No byte of a file is trusted: every size is checked
// against what the file holds before it is used.
Wav read_wav(const std::string& path);
void write_wav(const std::string& path, const Wav& wav);
