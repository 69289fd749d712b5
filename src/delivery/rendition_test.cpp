#include "delivery/rendition.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "delivery/accept.h"

namespace limner::delivery {
namespace {

using image::Format;

constexpr Format kAll[] = {Format::kPng, Format::kJpeg, Format::kWebp, Format::kAvif};

std::string chosen(std::string_view accept) {
  const auto format = choose_format(accept, kAll);
  if (!format) return "error";
  return *format ? std::string(content_type(**format)) : "none";
}

TEST(Accept, WeighsAnyMediaTypeByTheSameRules) {
  const auto weight = [](std::string_view accept) {
    return accept_weight(accept, "application/json").value();
  };
  EXPECT_EQ(weight(""), 1000);
  EXPECT_EQ(weight("image/*"), 0);
  EXPECT_EQ(weight("image/png, */*;q=0.8"), 800);
  EXPECT_EQ(weight("application/*;q=0.5, application/json;q=0.25"), 250);
  EXPECT_FALSE(accept_weight("json", "application/json").ok());
}

// Each expectation follows from RFC 9110, sections 12.4.2, 12.5.1 and 5.6.
TEST(Accept, TheMostSpecificRangeDecidesAndTheLargestWeightWins) {
  EXPECT_EQ(chosen(""), "image/png");
  EXPECT_EQ(chosen("*/*"), "image/png");
  EXPECT_EQ(chosen("image/*"), "image/png");
  EXPECT_EQ(chosen("image/webp"), "image/webp");
  EXPECT_EQ(chosen("IMAGE/WebP"), "image/webp");
  EXPECT_EQ(chosen("image/webp, image/avif"), "image/webp");  // equals: as offered
  EXPECT_EQ(chosen("image/webp;q=0.5, image/avif;q=0.501"), "image/avif");
  EXPECT_EQ(chosen("image/*;q=0.5, image/png;q=0.1"), "image/jpeg");
  EXPECT_EQ(chosen("image/png;q=0.1, image/*;q=0.5"), "image/jpeg");
  EXPECT_EQ(chosen("*/*;q=0.9, image/*;q=0.1, image/avif;q=0.2"), "image/avif");
  EXPECT_EQ(chosen("*/*, image/png;q=0, image/jpeg;q=0.000"), "image/webp");
  EXPECT_EQ(chosen("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"),
            "image/png");
  EXPECT_EQ(chosen("text/html, application/xhtml+xml, image/jpeg;q=0.9, */*;q=0.8"), "image/jpeg");
}

TEST(Accept, NothingFitsWhatRulesAllOut) {
  EXPECT_EQ(chosen("application/json"), "none");
  EXPECT_EQ(chosen("image/*;q=0"), "none");
  EXPECT_EQ(chosen("image/gif, text/*"), "none");
  // A range with a parameter names something narrower than what we have.
  EXPECT_EQ(chosen("image/png;level=1"), "none");
  EXPECT_EQ(chosen("image/png;level=\"a,b;\\\"\", image/webp;q=0.1"), "image/webp");
}

TEST(Accept, SpacesAndEmptyElementsAreAllowed) {
  EXPECT_EQ(chosen(" , image/webp ;\tq=0.5 ,, image/avif ; q=1.000,"), "image/avif");
  EXPECT_EQ(chosen("image/webp;;q=1"), "image/webp");
}

TEST(Accept, WhatBreaksTheGrammarIsRefused) {
  for (const char* bad :
       {"image", "image/", "/png", "image/png image/webp", "image/png;q=2", "image/png;q=1.001",
        "image/png;q=0.1234", "image/png;q=-1", "image/png;q=", "image/png;q=a", "*/png",
        "image/png;a=\"b", "image/png;q=.5", "image/\xff", "image/png;q=0,5"}) {
    EXPECT_EQ(chosen(bad), "error") << bad;
  }
}

image::Bitmap gradient(std::int64_t width, std::int64_t height) {
  image::Bitmap bitmap{width, height, {}};
  for (std::int64_t i = 0; i < width * height * 3; ++i) {
    bitmap.pixels.push_back(static_cast<std::uint8_t>(i % 251));
  }
  return bitmap;
}

RenditionOptions with_thumbnails(std::vector<std::int64_t> sizes, Format format = Format::kPng) {
  RenditionOptions options;
  options.thumbnails = std::move(sizes);
  options.thumbnail_format = format;
  return options;
}

bool holds(const std::vector<std::uint8_t>& bytes, std::string_view text) {
  return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()).find(text) !=
         std::string_view::npos;
}

TEST(Render, ThumbnailsKeepProportionsAndNeverGrow) {
  const auto made = render(gradient(300, 200), with_thumbnails({150, 64, 2048}));
  ASSERT_TRUE(made.ok()) << made.error().message;
  ASSERT_EQ(made->thumbnails.size(), 3u);
  EXPECT_EQ(made->thumbnails[0].width, 150);
  EXPECT_EQ(made->thumbnails[0].height, 100);
  EXPECT_EQ(made->thumbnails[1].width, 64);
  EXPECT_EQ(made->thumbnails[1].height, 43);
  EXPECT_EQ(made->thumbnails[2].width, 300);
  EXPECT_EQ(made->thumbnails[2].height, 200);
  const auto thin = render(gradient(2000, 8), with_thumbnails({16}));
  ASSERT_TRUE(thin.ok());
  EXPECT_EQ(thin->thumbnails[0].width, 16);
  EXPECT_EQ(thin->thumbnails[0].height, 1);
}

TEST(Render, ThePromptIsInThePictureAndNotInItsThumbnails) {
  RenditionOptions options = with_thumbnails({32});
  options.picture.text["parameters"] = "a secret garden";
  const auto made = render(gradient(64, 64), options);
  ASSERT_TRUE(made.ok());
  EXPECT_TRUE(holds(made->picture.bytes, "a secret garden"));
  EXPECT_FALSE(holds(made->thumbnails[0].bytes, "secret"));
}

TEST(Render, SizesOutOfRangeAreRefused) {
  const auto picture = gradient(64, 64);
  for (const auto& sizes :
       {std::vector<std::int64_t>{15}, {2049}, {-1}, std::vector<std::int64_t>(9, 64)}) {
    EXPECT_EQ(render(picture, with_thumbnails(sizes)).error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(Render, EveryFormatIsWhatItsFirstBytesSay) {
  for (const Format format : kAll) {
    RenditionOptions options = with_thumbnails({32}, format);
    options.picture.format = format;
    const auto made = render(gradient(64, 48), options);
    // A build without libvips writes PNG alone, and says so.
    if (!made && made.error().code == ErrorCode::kUnsupported && format != Format::kPng) continue;
    ASSERT_TRUE(made.ok()) << made.error().message;
    for (const Rendition* rendition : {&made->picture, &made->thumbnails[0]}) {
      const auto& bytes = rendition->bytes;
      const std::string start(bytes.begin(), bytes.begin() + 16);
      const auto at = [&](std::size_t place, std::string_view text) {
        return std::string_view(start).substr(place).starts_with(text);
      };
      switch (format) {
        case Format::kPng:
          EXPECT_TRUE(at(1, "PNG"));
          break;
        case Format::kJpeg:
          EXPECT_TRUE(at(0, "\xff\xd8\xff"));
          EXPECT_TRUE(holds(bytes, "\xff\xc2")) << "not progressive";
          break;
        case Format::kWebp:
          EXPECT_TRUE(at(8, "WEBP"));
          break;
        case Format::kAvif:
          EXPECT_TRUE(at(4, "ftypavif"));
          break;
      }
    }
  }
}

}  // namespace
}  // namespace limner::delivery
