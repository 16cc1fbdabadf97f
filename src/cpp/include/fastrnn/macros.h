/* What stands around the functions of fastrnn.h: their visibility, and what they promise. */
#ifndef FASTRNN_MACROS_H
#define FASTRNN_MACROS_H

#if defined(FASTRNN_STATIC)
#define FASTRNN_API
#elif defined(_WIN32) && defined(FASTRNN_BUILDING)
#define FASTRNN_API __declspec(dllexport)
#elif defined(_WIN32)
#define FASTRNN_API __declspec(dllimport)
#else
#define FASTRNN_API __attribute__((visibility("default")))
#endif

#if defined(__cplusplus)
#define FASTRNN_NOEXCEPT noexcept
#else
#define FASTRNN_NOEXCEPT
#endif

#define FASTRNN_NONBLOCKING FASTRNN_NOEXCEPT
#if defined(__clang__) && defined(__has_attribute)
#if __has_attribute(nonblocking)
#undef FASTRNN_NONBLOCKING
#if defined(__cplusplus)
#define FASTRNN_NONBLOCKING noexcept [[clang::nonblocking]]
#else
#define FASTRNN_NONBLOCKING __attribute__((nonblocking))
#endif
#endif
#endif

#endif
