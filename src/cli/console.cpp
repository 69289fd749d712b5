#include "cli/console.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace limner::cli {

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return 2;
    case ErrorCode::kBlocked:
      return 3;
    case ErrorCode::kCancelled:
      return 130;
    default:
      return 1;
  }
}

void Console::result(std::string_view text) const {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fputc('\n', stdout);
  std::fflush(stdout);
}

void Console::note(std::string_view text) const {
  if (!options_.json) fmt::print(stderr, "{}\n", text);
}

void Console::warning(std::string_view text) const {
  fmt::print(stderr, "warning: {}\n", text);
}

int Console::fail(const Error& error) const {
  if (options_.json) {
    const nlohmann::json body = {
        {"error", {{"code", name(error.code)}, {"message", error.message}}}};
    fmt::print(stderr, "{}\n", body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    fmt::print(stderr, "limner: {}\n", error.message);
  }
  return exit_code(error.code);
}

ProgressBar::ProgressBar(const Console& console, std::string label, std::int64_t total, Unit unit,
                         std::int64_t already)
    : label_(std::move(label)),
      total_(std::max<std::int64_t>(total, 1)),
      unit_(unit),
      already_(already),
      begin_(std::chrono::steady_clock::now()) {
  bar_ =
      console.progress() == ProgressStyle::kAuto && !console.json() && isatty(STDERR_FILENO) == 1;
  lines_ = console.progress() == ProgressStyle::kPlain;
}

ProgressBar::~ProgressBar() {
  finish();
}

std::string ProgressBar::text(std::int64_t done) const {
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  const std::int64_t here = done - already_;
  const double per_step = here > 0 ? seconds / static_cast<double>(here) : 0;
  std::string left;
  if (here > 0 && done < total_) {
    left = ", " + human_duration(per_step * static_cast<double>(total_ - done)) + " left";
  } else if (done == total_) {
    left = ", " + human_duration(seconds);
  }
  if (unit_ == Unit::kBytes) {
    const double speed = per_step > 0 ? 1 / per_step : 0;
    return fmt::format("{} {}/{} {}/s{}", label_, human_bytes(static_cast<std::uint64_t>(done)),
                       human_bytes(static_cast<std::uint64_t>(total_)),
                       human_bytes(static_cast<std::uint64_t>(speed)), left);
  }
  return fmt::format("{} {}/{} {:.0f} ms/step{}", label_, done, total_, per_step * 1000, left);
}

void ProgressBar::update(std::int64_t done) {
  const auto now = std::chrono::steady_clock::now();
  if (bar_ && (done == total_ || now - drawn_ > std::chrono::milliseconds(100))) {
    constexpr std::int64_t kWidth = 28;
    const std::int64_t filled = std::min(kWidth, done * kWidth / total_);
    std::string bar;
    for (std::int64_t i = 0; i < kWidth; ++i) bar += i < filled ? "█" : "░";
    fmt::print(stderr, "\r\033[K{} {}", bar, text(done));
    std::fflush(stderr);
    drawn_ = now;
    open_ = true;
  } else if (lines_ && done * 10 / total_ != last_tenth_) {
    last_tenth_ = done * 10 / total_;
    fmt::print(stderr, "{}\n", text(done));
  }
}

void ProgressBar::finish() {
  if (open_) fmt::print(stderr, "\n");
  open_ = false;
}

std::string human_duration(double seconds) {
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  if (whole < 3600) return fmt::format("{}:{:02} min", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02} h", whole / 3600, whole / 60 % 60, whole % 60);
}

}  // namespace limner::cli
