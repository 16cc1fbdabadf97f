# One row per ISA, best first: name | vector bytes | compiler flags | run-time predicate (C++).
#
# The only list of ISAs: src/cpp/kernels.cpp is compiled once per row with these flags, and registry.cpp asks the
# predicates in this order. Flags of instructions name exactly what the predicate tests, no -march=native, and take back
# what -march among the flags of a project around this one may have brought. No | and ; but between the fields.
# CONTRIBUTING.md says what else there is to look at.
set(FASTRNN_ISAS "")

set(architecture "${CMAKE_SYSTEM_PROCESSOR}")
if(APPLE AND CMAKE_OSX_ARCHITECTURES)
  list(LENGTH CMAKE_OSX_ARCHITECTURES architectures)
  if(architectures GREATER 1)
    message(FATAL_ERROR "fastrnn: CMAKE_OSX_ARCHITECTURES: expected one architecture, got ${CMAKE_OSX_ARCHITECTURES}. "
      "Flags of the kernels are those of one: build each in a folder of its own, and join the libraries with lipo")
  endif()
  set(architecture "${CMAKE_OSX_ARCHITECTURES}") # also another than this machine's
endif()
if(architecture MATCHES "x86_64|AMD64|amd64")
  list(APPEND FASTRNN_ISAS
    "avx512|64|-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma|__builtin_cpu_supports(\"avx512f\") && __builtin_cpu_supports(\"avx512bw\") && __builtin_cpu_supports(\"avx512dq\") && __builtin_cpu_supports(\"avx512vl\") && __builtin_cpu_supports(\"avx2\") && __builtin_cpu_supports(\"fma\")"
    "avx2|32|-mno-avx512f -mavx2 -mfma|__builtin_cpu_supports(\"avx2\") && __builtin_cpu_supports(\"fma\")"
    "baseline|16|-O2 -mno-avx|true") # for CPUs of before 2013: 80 KB less of the package, 1.01 to 1.2 times the time of -O3
elseif(architecture MATCHES "aarch64|arm64|ARM64")
  list(APPEND FASTRNN_ISAS "neon|16||true")
else()
  list(APPEND FASTRNN_ISAS "baseline|16||true")
endif()
