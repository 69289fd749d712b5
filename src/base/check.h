// LIMNER_CHECK: for our own mistakes, never for anything that came from outside.
#pragma once

#include <string_view>

namespace limner {

// Prints where and what to stderr and aborts.
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               std::string_view message);

}  // namespace limner

#define LIMNER_CHECK(condition, message)                                               \
  do {                                                                                 \
    if (!(condition)) ::limner::check_failed(__FILE__, __LINE__, #condition, message); \
  } while (false)
