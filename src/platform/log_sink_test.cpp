#include "platform/log_sink.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>
#include <vector>

namespace limner::platform {
namespace {

using nlohmann::json;

class LogSinkTest : public testing::Test {
 protected:
  void SetUp() override {
    ::signal(SIGPIPE, SIG_IGN);
    ASSERT_EQ(::pipe2(pipe_, O_CLOEXEC), 0);
    ::fcntl(pipe_[0], F_SETFL, O_NONBLOCK);
  }
  void TearDown() override {
    for (const int file : pipe_) {
      if (file >= 0) ::close(file);
    }
  }

  LogOptions options(LogFormat format = LogFormat::kJson) const {
    return {.level = LogLevel::kInfo, .format = format, .file = pipe_[1]};
  }

  std::string read_all() {
    std::string text;
    char buffer[65536];
    for (ssize_t got = 0; (got = ::read(pipe_[0], buffer, sizeof buffer)) > 0;) {
      text.append(buffer, static_cast<std::size_t>(got));
    }
    return text;
  }

  std::vector<json> read_lines() {
    std::istringstream text(read_all());
    std::vector<json> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(json::parse(line));
    return lines;
  }

  void close_reader() {
    ::close(pipe_[0]);
    pipe_[0] = -1;
  }

  int pipe_[2] = {-1, -1};
  ManualClock clock_{Millis{1'795'272'832'125}};
};

// `date -u -d @1795272832` is 2026-11-21 14:53:52, that of 951782400 is the leap day of 2000.
TEST(Rfc3339, IsUtcWithMilliseconds) {
  EXPECT_EQ(to_rfc3339(Millis{1'795'272'832'125}), "2026-11-21T14:53:52.125Z");
  EXPECT_EQ(to_rfc3339(Millis{951'782'400'000}), "2000-02-29T00:00:00.000Z");
  EXPECT_EQ(to_rfc3339(Millis{0}), "1970-01-01T00:00:00.000Z");
}

TEST_F(LogSinkTest, WritesOneObjectALine) {
  LogSink log(options(), clock_);
  log.info("job finished", {{"request_id", "abc"}, {"steps", 20}, {"seconds", 1.5}, {"ok", true}});
  log.error("disk is full");
  EXPECT_EQ(read_all(),
            R"({"time":"2026-11-21T14:53:52.125Z","level":"info","message":"job finished",)"
            R"("request_id":"abc","steps":20,"seconds":1.5,"ok":true})"
            "\n"
            R"({"time":"2026-11-21T14:53:52.125Z","level":"error","message":"disk is full"})"
            "\n");
}

TEST_F(LogSinkTest, LeavesOutWhatIsBelowItsLevel) {
  LogSink log(options(), clock_);
  log.debug("not this");
  log.warning("but this");
  const auto lines = read_lines();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["level"], "warning");
}

TEST_F(LogSinkTest, EscapesWhateverItIsGiven) {
  LogSink log(options(), clock_);
  std::string every_byte;
  for (int byte = 0; byte < 256; ++byte) every_byte += static_cast<char>(byte);
  log.info("a\nb\x1b[31m", {{"text", every_byte}, {"quote\"", "\xc3\xa9"}});
  log.info("numbers", {{"nan", std::nan("")}, {"inf", std::numeric_limits<double>::infinity()}});
  const std::string text = read_all();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
  EXPECT_TRUE(std::none_of(text.begin(), text.end(),
                           [](unsigned char c) { return c < 0x20 && c != '\n'; }));
  const json line = json::parse(text.substr(0, text.find('\n')));
  EXPECT_EQ(line["message"], "a\nb\x1b[31m");
  EXPECT_EQ(line["quote\""], "\xc3\xa9");
  EXPECT_NE(line["text"].get<std::string>().find("\xef\xbf\xbd"), std::string::npos) << "U+FFFD";
}

TEST_F(LogSinkTest, AFieldCannotStandInForTheLinesOwn) {
  LogSink log(options(), clock_);
  log.info("true message", {{"message", "forged"}, {"level", "error"}});
  const auto lines = read_lines();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["message"], "true message");
  EXPECT_EQ(lines[0]["level"], "info");
}

TEST_F(LogSinkTest, CutsALineThatAPipeWouldNotTakeWhole) {
  LogSink log(options(), clock_);
  const std::string long_text(20'000, 'x');
  std::string accents;
  while (accents.size() < 20'000) accents += "\xc3\xa9";
  log.info("long", {{"error", long_text}, {"other", accents}, {"request_id", "abc"}});
  std::vector<std::string> names(400);
  std::vector<LogField> fields;
  for (std::size_t i = 0; i < names.size(); ++i) {
    names[i] = "field" + std::to_string(i);
    fields.push_back({names[i], std::string_view(long_text)});
  }
  log.write(LogLevel::kInfo, "many", fields);
  const auto lines = read_lines();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_LE(lines[0].dump().size(), std::size_t{PIPE_BUF});
  EXPECT_EQ(lines[0]["request_id"], "abc");
  EXPECT_TRUE(lines[0]["error"].get<std::string>().ends_with("x..."));
  EXPECT_TRUE(lines[0]["other"].get<std::string>().ends_with("\xc3\xa9..."));
  EXPECT_EQ(lines[1]["message"], "many");
  EXPECT_EQ(lines[1]["fields_left_out"], 400);
  EXPECT_EQ(log.dropped(), 0u);
}

TEST_F(LogSinkTest, TextFormIsForEyesAndObeysNoEscapeCodes) {
  LogSink log(options(LogFormat::kText), clock_);
  log.warning("slow\x1b[2J disk", {{"path", "/data/a.png"}, {"why", "it \x9b is\nslow"}, {"n", 3}});
  EXPECT_EQ(read_all(),
            "14:53:52.125 warning slow\\u001b[2J disk  path=/data/a.png  "
            "why=\"it \\ufffd is\\nslow\"  n=3\n");
}

TEST_F(LogSinkTest, AutoIsJsonWhereThereIsNoTerminal) {
  LogSink log(options(LogFormat::kAuto), clock_);
  log.info("hello");
  EXPECT_EQ(read_lines().size(), 1u);
}

TEST_F(LogSinkTest, AReaderThatHangsCostsLinesButNoTime) {
  LogSink log(options(), clock_);
  const auto begin = std::chrono::steady_clock::now();
  int written = 0;
  while (log.dropped() < 500) {
    log.info("filling the pipe", {{"text", "0123456789012345678901234567890123456789"}});
    ++written;
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));

  const auto before = read_lines();
  EXPECT_EQ(before.size(), static_cast<std::size_t>(written) - 500);
  log.info("the reader is back");
  const auto after = read_lines();
  ASSERT_EQ(after.size(), 2u);
  EXPECT_EQ(after[0]["message"], "log lines were dropped");
  EXPECT_EQ(after[0]["dropped"], 500);
  EXPECT_EQ(after[1]["message"], "the reader is back");
  log.info("and said once");
  EXPECT_EQ(read_lines().size(), 1u);
}

TEST_F(LogSinkTest, AReaderThatHasLeftIsNoError) {
  LogSink log(options(), clock_);
  close_reader();
  log.info("nobody reads this");
  EXPECT_EQ(log.dropped(), 1u);
}

TEST_F(LogSinkTest, LinesOfManyThreadsStayWhole) {
  LogSink log(options(), clock_);
  std::string text;
  {
    std::vector<std::jthread> writers;
    std::atomic<int> busy{4};
    for (int thread = 0; thread < 4; ++thread) {
      writers.emplace_back([&log, &busy, thread] {
        const std::string filler(static_cast<std::size_t>(100 + 300 * thread), 'x');
        for (int i = 0; i < 300; ++i) log.info("line", {{"thread", thread}, {"text", filler}});
        --busy;
      });
    }
    while (busy > 0) {
      pollfd ready{pipe_[0], POLLIN, 0};
      ::poll(&ready, 1, 10);
      text += read_all();
    }
  }
  text += read_all();
  std::istringstream lines(text);
  std::size_t count = 0, told = 0;
  for (std::string line; std::getline(lines, line);) {
    const json one = json::parse(line);
    if (one.contains("dropped")) {
      told += one["dropped"].get<std::size_t>();
    } else {
      ++count;
    }
  }
  EXPECT_EQ(count + log.dropped(), 1'200u);
  EXPECT_LE(told, log.dropped());
}

}  // namespace
}  // namespace limner::platform
