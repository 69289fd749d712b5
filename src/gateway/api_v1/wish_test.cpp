#include "gateway/api_v1/wish.h"

#include <gtest/gtest.h>

namespace limner::gateway::api_v1 {
namespace {

using image::Format;

Wish wish(const char* accept, const char* prefer = "", std::optional<Format> format = {}) {
  http::Request request;
  if (*accept != 0) request.headers.set("Accept", accept);
  if (*prefer != 0) request.headers.set("Prefer", prefer);
  return read_wish(request, format);
}

int refusal(const char* accept, std::optional<Format> format = {}) {
  try {
    wish(accept, "", format);
    return 0;
  } catch (const http::ProblemFailure& failure) {
    return static_cast<int>(failure.problem().status);
  }
}

TEST(Wish, APictureIsGivenToThoseWhoPreferItOnly) {
  EXPECT_FALSE(wish("").picture);
  EXPECT_FALSE(wish("*/*").picture);
  EXPECT_FALSE(wish("application/json").picture);
  EXPECT_FALSE(wish("application/json, image/png").picture) << "equals: JSON is the usual answer";
  EXPECT_EQ(wish("image/*").picture, Format::kPng);
  EXPECT_EQ(wish("image/avif, image/webp;q=0.9, */*;q=0.1").picture, Format::kAvif);
  EXPECT_EQ(wish("image/*;q=0.8, application/json;q=0.5").picture, Format::kPng);
  EXPECT_EQ(wish("image/*", "", Format::kJpeg).picture, Format::kJpeg);
}

TEST(Wish, WhatCannotBeHadIsNotAcceptable) {
  EXPECT_EQ(refusal("text/html"), 406);
  EXPECT_EQ(refusal("image/gif"), 406);
  EXPECT_EQ(refusal("image/webp", Format::kPng), 406);
  EXPECT_EQ(refusal("application/json;q=0"), 406);
  EXPECT_EQ(refusal("image"), 400);
}

TEST(Wish, ReadsHowLongAClientWaits) {
  EXPECT_EQ(wish("", "wait=10").wait, std::chrono::seconds(10));
  EXPECT_EQ(wish("", "respond-async, WAIT=\"7\"; foo").wait, std::chrono::seconds(7));
  for (const char* ignored :
       {"", "respond-async", "wait", "wait=", "wait=x", "wait=-1", "wait=1x"}) {
    EXPECT_FALSE(wish("", ignored).wait) << ignored;
  }
}

}  // namespace
}  // namespace limner::gateway::api_v1
