// Names of stored objects. A name is made of its content, so that storing the same bytes twice is
// storing them once, and what is read can be held against its own name.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace limner::delivery {

// How long an object is kept; the lifetimes themselves are the sweeper's (sweeper.h).
enum class Retention {
  kHot,   // a fresh picture, fetched soon after it was made
  kWarm,  // a picture its owner keeps
  kCold,  // an archive, seldom read
};

std::string_view name(Retention retention);  // "hot", "warm", "cold"
Result<Retention> retention_from_name(std::string_view name);

// "hot/ACCOUNT/ab/SHA256.png". Every part is of letters, digits, '-' and '_', so a key is safe as a
// path and in a URL as it stands; SHA256 begins with the two digits of its folder.
struct ObjectKey {
  Retention retention = Retention::kHot;
  std::string account;    // 1..64 letters, digits, '-', '_'
  std::string sha256;     // of the object's bytes, 64 lower-case hexadecimal digits
  std::string extension;  // without the dot, 1..8 lower-case letters and digits

  std::string text() const;
  friend bool operator==(const ObjectKey&, const ObjectKey&) = default;
};

// Only what ObjectKey::text() makes is read; all else is kInvalidArgument.
Result<ObjectKey> parse_object_key(std::string_view text);

// kInvalidArgument naming what is wrong with it.
Result<void> check_account(std::string_view account);
Result<void> check_extension(std::string_view extension);

// The media type that an extension stands for; application/octet-stream for one not known here.
std::string_view content_type(std::string_view extension);

}  // namespace limner::delivery
