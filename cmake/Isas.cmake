# One row per ISA, best first: name | vector bytes | compiler flags | run-time predicate (C++).
#
# A row is all it takes to add an ISA: src/cpp/kernels.cpp is compiled once per row with these flags, and registry.cpp
# asks the predicates in this order. Flags name exactly what the predicate tests, no -march=native.
set(FASTRNN_ISAS "")

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64" AND NOT CMAKE_OSX_ARCHITECTURES MATCHES "arm64")
  list(APPEND FASTRNN_ISAS
    "avx512|64|-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma|__builtin_cpu_supports(\"avx512f\") && __builtin_cpu_supports(\"avx512bw\") && __builtin_cpu_supports(\"avx512dq\") && __builtin_cpu_supports(\"avx512vl\") && __builtin_cpu_supports(\"avx2\") && __builtin_cpu_supports(\"fma\")"
    "avx2|32|-mavx2 -mfma|__builtin_cpu_supports(\"avx2\") && __builtin_cpu_supports(\"fma\")"
    "baseline|16||true")
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64" OR CMAKE_OSX_ARCHITECTURES MATCHES "arm64")
  list(APPEND FASTRNN_ISAS "neon|16||true")
else()
  list(APPEND FASTRNN_ISAS "baseline|16||true")
endif()
