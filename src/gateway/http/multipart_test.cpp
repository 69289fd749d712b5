#include "gateway/http/multipart.h"

#include <gtest/gtest.h>

#include <string>

namespace limner::gateway::http {
namespace {

constexpr std::string_view kType = "multipart/form-data; boundary=xyz";

std::string error_of(std::string_view body, std::string_view type = kType) {
  const auto parts = parse_multipart(type, body);
  return parts.ok() ? "" : parts.error().message;
}

// As curl 7.88 sends `-F prompt='a red circle' -F image=@a.png`.
TEST(Multipart, ReadsAFormWithAFile) {
  const std::string body =
      "--------------------------4ebf00fbcf09\r\n"
      "Content-Disposition: form-data; name=\"prompt\"\r\n\r\n"
      "a red circle\r\n"
      "--------------------------4ebf00fbcf09\r\n"
      "Content-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n"
      "Content-Type: image/png\r\n\r\n"
      "\x89PNG\r\n\x1a\n--not the end\r\n\r\n"
      "--------------------------4ebf00fbcf09--\r\n";
  const auto parts = parse_multipart(
      "Multipart/Form-Data; charset=utf-8; Boundary=\"------------------------4ebf00fbcf09\"",
      body);
  ASSERT_TRUE(parts.ok()) << parts.error().message;
  ASSERT_EQ(parts->size(), 2U);
  EXPECT_EQ((*parts)[0].name, "prompt");
  EXPECT_EQ((*parts)[0].content, "a red circle");
  EXPECT_EQ((*parts)[0].filename, "");
  EXPECT_EQ((*parts)[1].filename, "a.png");
  EXPECT_EQ((*parts)[1].content_type, "image/png");
  EXPECT_EQ((*parts)[1].content, "\x89PNG\r\n\x1a\n--not the end\r\n");
}

TEST(Multipart, ReadsOddButLegalForms) {
  const auto one =
      parse_multipart(kType,
                      "preamble\r\n--xyz\r\nX: y\r\ncontent-disposition:form-data;"
                      "name=a;filename=\"C:\\dir\\b \\\"c\\\".png\"\r\n\r\n\r\n--xyz--tail");
  ASSERT_TRUE(one.ok()) << one.error().message;
  EXPECT_EQ(one->at(0).filename, "b \"c\".png");
  EXPECT_EQ(one->at(0).content, "");
  const auto none = parse_multipart(kType, "--xyz--");
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(none->empty());
}

TEST(Multipart, BrokenFormsAreRefused) {
  const std::string head = "--xyz\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n";
  EXPECT_EQ(error_of(head + "b\r\n--xyz--"), "");
  EXPECT_NE(error_of(head + "b\r\n--xyz--", "application/json"), "");
  EXPECT_NE(error_of(head + "b\r\n--xyz--", "multipart/form-data"), "");
  EXPECT_NE(error_of("", kType), "");
  EXPECT_NE(error_of("--xyz"), "");
  EXPECT_NE(error_of("--xyz\r\n"), "");
  EXPECT_NE(error_of("--xyz\r\n\r\nb\r\n--xyz--"), "");  // no header
  EXPECT_NE(error_of(head), "");
  EXPECT_NE(error_of(head + "b"), "");
  EXPECT_NE(error_of(head + "b\r\n--xyz"), "");
  EXPECT_NE(error_of(head + "b\r\n--xyzz--"), "");
  EXPECT_NE(error_of("--xyz\r\nContent-Disposition: form-data\r\n\r\nb\r\n--xyz--"), "");
  EXPECT_NE(error_of("--xyz\r\nContent-Disposition: form-data; name=\"a\r\n\r\nb\r\n--xyz--"), "");
  EXPECT_NE(error_of("--xyz\r\nContent-Disposition: file; name=a\r\n\r\nb\r\n--xyz--"), "");
  EXPECT_NE(error_of("--xyz\r\nA: " + std::string(9000, 'x') + "\r\n\r\nb\r\n--xyz--"), "");
  std::string many;
  for (std::size_t i = 0; i <= kMostFormParts; ++i) many += head + "b\r\n";
  EXPECT_NE(error_of(many + "--xyz--"), "");
}

}  // namespace
}  // namespace limner::gateway::http
