#include "delivery/accept.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

namespace limner::delivery {
namespace {

struct MediaRange {
  std::string type, subtype;  // lower case, "*" for any
  bool parameters = false;    // besides the weight: a narrower thing than any of our formats
  int weight = 1000;          // thousandths
};

// Reads the header from front to back; throws Failure where the grammar breaks.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  std::vector<MediaRange> read() {
    std::vector<MediaRange> ranges;
    while (true) {
      skip_spaces();
      // Empty elements count for nothing (section 5.6.1).
      if (!at_end() && text_[at_] != ',') ranges.push_back(range());
      skip_spaces();
      if (at_end()) return ranges;
      expect(',');
    }
  }

 private:
  bool at_end() const { return at_ == text_.size(); }

  [[noreturn]] void fail() const {
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("[accept] want a list such as 'image/webp, image/*;q=0.5' in Accept, "
                              "got something else at character {} of '{}'",
                              at_ + 1, text_.substr(0, 200)));
  }

  void skip_spaces() {
    while (!at_end() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
  }

  bool take(char c) {
    if (at_end() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void expect(char c) {
    if (!take(c)) fail();
  }

  // In lower case.
  std::string token() {
    std::string word;
    for (; !at_end(); ++at_) {
      char c = text_[at_];
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
      const bool fits = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                        std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
      if (!fits) break;
      word += c;
    }
    if (word.empty()) fail();
    return word;
  }

  void quoted() {
    while (!take('"')) {
      take('\\');
      if (at_end()) fail();
      ++at_;
    }
  }

  // 0, 0.5, 0.125, 1, 1.000; no more than three digits.
  int weight() {
    const std::string word = token();
    const auto digit = [](char c) { return c >= '0' && c <= '9'; };
    const bool form = (word[0] == '0' || word[0] == '1') &&
                      (word.size() == 1 || (word[1] == '.' && word.size() <= 5)) &&
                      std::all_of(word.begin() + std::min<std::ptrdiff_t>(2, std::ssize(word)),
                                  word.end(), digit);
    if (!form) fail();
    int thousandths = word[0] == '1' ? 1000 : 0, unit = 100;
    for (std::size_t i = 2; i < word.size(); ++i, unit /= 10) thousandths += (word[i] - '0') * unit;
    if (thousandths > 1000) fail();
    return thousandths;
  }

  MediaRange range() {
    MediaRange range;
    range.type = token();
    expect('/');
    range.subtype = token();
    if (range.type == "*" && range.subtype != "*") fail();
    while (true) {
      skip_spaces();
      if (!take(';')) return range;
      skip_spaces();
      if (at_end() || text_[at_] == ';' || text_[at_] == ',') continue;
      const std::string name = token();
      if (name == "q") {
        expect('=');
        range.weight = weight();
        continue;
      }
      range.parameters = true;
      if (!take('=')) continue;
      if (take('"')) {
        quoted();
      } else {
        token();
      }
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

// How narrowly `range` fits; 0: not at all.
int fit(const MediaRange& range, std::string_view type, std::string_view subtype) {
  if (range.parameters) return 0;
  if (range.type == "*") return 1;
  if (range.type != type) return 0;
  if (range.subtype == "*") return 2;
  return range.subtype == subtype ? 3 : 0;
}

int weight_of(std::string_view media_type, const std::vector<MediaRange>& ranges) {
  const auto slash = media_type.find('/');
  const std::string_view type = media_type.substr(0, slash);
  const std::string_view subtype = media_type.substr(slash + 1);
  int best_fit = 0, weight = 0;
  for (const MediaRange& range : ranges) {
    const int fits = fit(range, type, subtype);
    if (fits <= best_fit) continue;
    best_fit = fits;
    weight = range.weight;
  }
  return weight;
}

// Of the header's text; an empty one takes anything. Throws Failure.
std::vector<MediaRange> read_ranges(std::string_view accept) {
  auto ranges = Reader(accept).read();
  if (ranges.empty()) ranges.push_back({"*", "*"});
  return ranges;
}

}  // namespace

std::string_view content_type(image::Format format) {
  switch (format) {
    case image::Format::kPng:
      return "image/png";
    case image::Format::kJpeg:
      return "image/jpeg";
    case image::Format::kWebp:
      return "image/webp";
    case image::Format::kAvif:
      return "image/avif";
  }
  return "application/octet-stream";
}

Result<std::optional<image::Format>> choose_format(std::string_view accept,
                                                   std::span<const image::Format> offered) {
  try {
    const auto ranges = read_ranges(accept);
    std::optional<image::Format> best;
    int best_weight = 0;
    for (const image::Format format : offered) {
      const int weight = weight_of(content_type(format), ranges);
      if (weight <= best_weight) continue;
      best = format;
      best_weight = weight;
    }
    return best;
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<int> accept_weight(std::string_view accept, std::string_view media_type) {
  try {
    return weight_of(media_type, read_ranges(accept));
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::delivery
