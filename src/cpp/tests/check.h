// A test is a function; CHECK says where and what failed, and the run goes on.
#pragma once

#include <cstdio>

namespace fastrnn::tests {

extern int failures;

#define CHECK(condition, ...)                                            \
  do {                                                                   \
    if (!(condition)) {                                                  \
      ++::fastrnn::tests::failures;                                      \
      std::printf("%s:%d: failed: %s ", __FILE__, __LINE__, #condition); \
      std::printf(__VA_ARGS__);                                          \
      std::printf("\n");                                                 \
    }                                                                    \
  } while (false)

void test_gradients();
void test_bits();
void test_crew();
void test_wavefront();
void test_memory();
void test_plan();
void test_pool();
void test_quota();
void test_stream();
void test_bf16();
void test_bf16_pairs();
void test_unpacked();
void print_bits();  // a line "case hash" each, for comparison between compilers and machines

}  // namespace fastrnn::tests
