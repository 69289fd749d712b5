// Console: how a command speaks. Results go to stdout, everything else to stderr.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/human_bytes.h"

namespace limner::cli {

enum class ProgressStyle { kAuto, kPlain, kNone };  // kAuto: a bar on a terminal, nothing elsewhere

struct ConsoleOptions {
  bool json = false;  // results and errors as one JSON object each
  ProgressStyle progress = ProgressStyle::kAuto;
};

// 0 done, 1 failed, 2 wrong usage, 3 blocked by safety, 130 interrupted.
int exit_code(ErrorCode code);

// Used by one thread.
class Console {
 public:
  explicit Console(ConsoleOptions options) : options_(options) {}

  bool json() const { return options_.json; }
  void result(std::string_view text) const;   // stdout, with a line end
  void note(std::string_view text) const;     // stderr; silent with --json
  void warning(std::string_view text) const;  // stderr "warning: ..."
  // Prints the error (a sentence, or {"error": {"code", "message"}}) to stderr and gives its exit
  // code.
  int fail(const Error& error) const;

  ProgressStyle progress() const { return options_.progress; }

 private:
  ConsoleOptions options_;
};

// A bar with work done, speed and time left; redrawn at most ten times a second on a terminal, a
// line per tenth of the work with --progress plain.
class ProgressBar {
 public:
  enum class Unit { kSteps, kBytes };
  // `already` of the total was done before: it counts for nothing in speed and time.
  ProgressBar(const Console& console, std::string label, std::int64_t total,
              Unit unit = Unit::kSteps, std::int64_t already = 0);
  ~ProgressBar();
  void update(std::int64_t done);
  void finish();  // leaves the line as it stands

 private:
  std::string text(std::int64_t done) const;

  std::string label_;
  std::int64_t total_;
  Unit unit_;
  std::int64_t already_;
  bool bar_ = false;
  bool lines_ = false;
  bool open_ = false;
  std::int64_t last_tenth_ = -1;
  std::chrono::steady_clock::time_point begin_;
  std::chrono::steady_clock::time_point drawn_{};
};

// "3.2 s", "1:05 min", "2:03:09 h"
std::string human_duration(double seconds);

}  // namespace limner::cli
