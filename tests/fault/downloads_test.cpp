// Downloads from a server that does everything wrong, over real sockets and TLS.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/sha256.h"
#include "fault/https_server.h"
#include "platform/http/download.h"

namespace limner::platform::http {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

// The file that https_server.py makes for a number of data bytes.
std::string safetensors(std::size_t size, std::size_t shift = 0) {
  constexpr std::size_t kPeriod = 65521;
  const std::string number = std::to_string(size);
  const std::string header = "{\"x\": {\"dtype\": \"U8\", \"shape\": [" + number +
                             "], \"data_offsets\": [0, " + number + "]}}";
  std::string file;
  for (int i = 0; i < 8; ++i) {
    file += static_cast<char>(static_cast<std::uint64_t>(header.size()) >> (8 * i) & 255);
  }
  file += header;
  for (std::size_t n = 0; n < size; ++n) {
    const std::size_t i = (n + shift) % kPeriod;
    file += static_cast<char>((((i * i) >> 3) * 31 + i * 7 + 3) & 255);
  }
  return file;
}

std::string hash(const std::string& text) {
  return sha256_hex(std::as_bytes(std::span<const char>(text)));
}

std::string content(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

HttpsServer& server() {
  static HttpsServer one;
  return one;
}

class Downloads : public testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(server().ready) << "no python3 or openssl here?"; }
  void SetUp() override {
    folder_ = server().folder / testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::create_directory(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  static NetworkRules rules() {
    NetworkRules rules;
    rules.allow = parse_address_ranges("127.0.0.1").value();
    rules.ca_file = server().authority();
    rules.first_delay = 5ms;
    rules.max_delay = 20ms;
    rules.connect_timeout = 5s;
    rules.stall_timeout = 1s;
    rules.total_timeout = 20s;
    return rules;
  }

  DownloadRequest request(const std::string& path) const {
    DownloadRequest request;
    request.url = path.starts_with("http") ? path : server().url(path);
    request.file = folder_ / "file.safetensors";
    request.content = Content::kSafetensors;
    request.min_piece = 200'000;
    request.network = rules();
    return request;
  }

  // Refused with this code and a word in the message, and nothing is left behind.
  void expect_refused(const DownloadRequest& wanted, ErrorCode code,
                      const std::string& word) const {
    const auto done = download(wanted);
    ASSERT_FALSE(done.ok()) << wanted.url;
    EXPECT_EQ(name(done.error().code), name(code)) << done.error().message;
    EXPECT_NE(done.error().message.find(word), std::string::npos) << done.error().message;
    EXPECT_TRUE(fs::is_empty(folder_)) << fs::directory_iterator(folder_)->path();
  }

  void expect_brought(const DownloadRequest& wanted, const std::string& file) const {
    const auto done = download(wanted);
    ASSERT_TRUE(done.ok()) << wanted.url << ": " << done.error().message;
    EXPECT_EQ(done->bytes, file.size());
    EXPECT_EQ(done->sha256, hash(file)) << wanted.url;
    EXPECT_TRUE(content(done->file) == file) << wanted.url << ": other bytes than were sent";
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1) << "something is left behind";
    fs::remove(done->file);
  }

  static nlohmann::json log() {
    return nlohmann::json::parse(fetch({server().url("/log"), 64u << 20, rules()}).value());
  }
  static int connections(const std::string& name) { return log()["connections"][name]; }
  // The requests whose path begins so.
  static std::vector<nlohmann::json> asked(const std::string& path) {
    std::vector<nlohmann::json> found;
    const nlohmann::json all = log();
    for (const auto& entry : all["requests"]) {
      if (entry["path"].get<std::string>().starts_with(path)) found.push_back(entry);
    }
    return found;
  }

  fs::path folder_;
};

TEST_F(Downloads, AFileArrivesWhole) {
  expect_brought(request("/plain/1000"), safetensors(1000));
  expect_brought(request("/chunked/300000"), safetensors(300'000));
  DownloadRequest any = request("/text/0");
  any.content = Content::kAny;
  expect_brought(any, "");
}

TEST_F(Downloads, TheRightHashIsTakenAndAWrongOneRefused) {
  const std::string file = safetensors(5000);
  DownloadRequest wanted = request("/plain/5000");
  wanted.sha256 = std::string(64, 'a');
  expect_refused(wanted, ErrorCode::kInvalidModel, "want SHA-256 aaaa");
  wanted.sha256 = hash(file);
  ASSERT_TRUE(download(wanted).ok());
  const auto before = asked("/plain/5000").size();
  expect_brought(wanted, file);
  EXPECT_EQ(asked("/plain/5000").size(), before) << "what is there needs no connection";
  wanted.sha256 = "abc";
  EXPECT_EQ(download(wanted).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(Downloads, ALargeFileComesOverSeveralConnections) {
  const std::string file = safetensors(3'000'000);
  expect_brought(request("/plain/3000000"), file);
  expect_brought(request("/paced/1500000"), safetensors(1'500'000));
  const auto requests = asked("/paced/1500000");
  ASSERT_GE(requests.size(), 4u);
  EXPECT_FALSE(requests[0]["headers"].contains("Range")) << "the first one asks for the file";
  EXPECT_EQ(requests[1]["headers"]["If-Range"], "\"v1\"");
  DownloadRequest single = request("/plain/3000001");
  single.connections = 1;
  expect_brought(single, safetensors(3'000'001));
  EXPECT_EQ(asked("/plain/3000001").size(), 1u);
}

TEST_F(Downloads, ServersThatIgnoreRangesServeAllTheSame) {
  expect_brought(request("/noranges/2000000"), safetensors(2'000'000));
  expect_brought(request("/claimsranges/2000000"), safetensors(2'000'000));
  expect_brought(request("/one/2000000"), safetensors(2'000'000));
}

TEST_F(Downloads, ALineThatDiesIsTakenUpWhereItBroke) {
  expect_brought(request("/cut/1000000/150000"), safetensors(1'000'000));
  DownloadRequest single = request("/cut/900000/100000");
  single.connections = 1;
  expect_brought(single, safetensors(900'000));
  const auto requests = asked("/cut/900000/100000");
  ASSERT_EQ(requests.size(), 10u) << "100000 bytes each";
  EXPECT_FALSE(requests[0]["headers"].contains("Range"));
  EXPECT_EQ(requests[1]["headers"]["Range"], "bytes=100000-");
  EXPECT_EQ(requests[1]["headers"]["If-Range"], "\"v1\"");
}

TEST_F(Downloads, ADeadLineWithoutProgressEndsAfterTheTries) {
  expect_refused(request("/cutnoranges/500000/100000"), ErrorCode::kUnavailable, "");
  EXPECT_EQ(asked("/cutnoranges/500000/100000").size(), 5u);
}

TEST_F(Downloads, AStoppedDownloadIsContinuedByTheNextCall) {
  const std::string file = safetensors(2'000'000);
  DownloadRequest wanted = request("/paced/2000000");
  std::stop_source stop;
  wanted.stop = stop.get_token();
  wanted.progress = [&](const Progress& progress) {
    if (progress.done > 700'000) stop.request_stop();
  };
  const auto stopped = download(wanted);
  ASSERT_FALSE(stopped.ok());
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
  EXPECT_FALSE(fs::exists(wanted.file)) << "a half file is never visible";
  EXPECT_TRUE(fs::exists(wanted.file.string() + ".part"));

  std::uint64_t first = 0;
  wanted.stop = {};
  wanted.progress = [&](const Progress& progress) {
    if (first == 0) first = progress.done;
  };
  expect_brought(wanted, file);
  EXPECT_GT(first, 700'000u);
}

TEST_F(Downloads, APartOfAnotherUrlIsNotContinued) {
  DownloadRequest wanted = request("/paced/2000000?first");
  std::stop_source stop;
  wanted.stop = stop.get_token();
  wanted.progress = [&](const Progress& progress) {
    if (progress.done > 300'000) stop.request_stop();
  };
  EXPECT_FALSE(download(wanted).ok());
  expect_brought(request("/plain/2000000?second"), safetensors(2'000'000));
}

TEST_F(Downloads, AFileThatChangesMidwayIsFetchedAnew) {
  DownloadRequest wanted = request("/changes/600000");
  wanted.connections = 1;
  expect_brought(wanted, safetensors(600'000, 7));
  expect_brought(request("/changesunderway/1500000"), safetensors(1'500'000, 7));
}

TEST_F(Downloads, WrongRangesAreNotMixedIn) {
  DownloadRequest wanted = request("/wrongrange/800000");
  wanted.connections = 1;
  expect_brought(wanted, safetensors(800'000));
}

TEST_F(Downloads, LengthsThatLieAreNoticed) {
  expect_refused(request("/short/50000"), ErrorCode::kUnavailable, "");
  expect_refused(request("/long/50000"), ErrorCode::kInvalidModel, "its header tells of");
  expect_refused(request("/huge"), ErrorCode::kInvalidModel, "are allowed");
  DownloadRequest huge = request("/huge");
  huge.max_bytes = ~std::uint64_t{0};
  expect_refused(huge, ErrorCode::kIo, "the disk has");
  expect_refused(request("/headers"), ErrorCode::kUnavailable, "too long a header");
}

TEST_F(Downloads, TheSizeCapHoldsWhateverTheServerSays) {
  DownloadRequest wanted = request("/plain/100000");
  wanted.max_bytes = 100'000;
  expect_refused(wanted, ErrorCode::kInvalidModel, "100000 are allowed");
  wanted = request("/endless");
  wanted.max_bytes = 1'000'000;
  expect_refused(wanted, ErrorCode::kInvalidModel, "1000000 bytes that are allowed");
}

TEST_F(Downloads, CompressionIsRefusedNotUnpacked) {
  expect_refused(request("/gzip/10000000"), ErrorCode::kInvalidModel, "compressed (gzip)");
  expect_refused(request("/transfergzip/10000000"), ErrorCode::kInvalidModel, "gzip");
  const auto text = fetch({server().url("/gzip/1000"), 1u << 20, rules()});
  ASSERT_FALSE(text.ok());
  EXPECT_NE(text.error().message.find("compressed"), std::string::npos) << text.error().message;
}

TEST_F(Downloads, OnlySafetensorsIsTakenAndTheRestIsNamed) {
  expect_refused(request("/zip"), ErrorCode::kInvalidModel, "zip archive");
  expect_refused(request("/pickle"), ErrorCode::kInvalidModel, "pickle");
  expect_refused(request("/html"), ErrorCode::kInvalidModel, "web page");
  expect_refused(request("/hiddenhtml"), ErrorCode::kInvalidModel, "web page");
  expect_refused(request("/error"), ErrorCode::kInvalidModel, "JSON");
  expect_refused(request("/tiny"), ErrorCode::kInvalidModel, "4 bytes");
  expect_refused(request("/nothing"), ErrorCode::kInvalidModel, "0 bytes");
  expect_refused(request("/headerbomb"), ErrorCode::kInvalidModel, "cannot be read");
  expect_refused(request("/text/5000"), ErrorCode::kInvalidModel, "does not begin like one");
}

TEST_F(Downloads, AServerInTroubleIsAskedAgainWhenItSays) {
  expect_brought(request("/status/503/2/1000"), safetensors(1000));
  EXPECT_EQ(asked("/status/503/2/1000").size(), 3u);
  const auto begin = std::chrono::steady_clock::now();
  expect_brought(request("/status/429/1/1000"), safetensors(1000));
  EXPECT_GE(std::chrono::steady_clock::now() - begin, 1s) << "Retry-After: 1";
  expect_refused(request("/later/100000"), ErrorCode::kUnavailable, "no further try for 100000 s");
  EXPECT_EQ(asked("/later/100000").size(), 1u);
  expect_refused(request("/status/500/99/1000"), ErrorCode::kUnavailable, "answered 500");
  EXPECT_EQ(asked("/status/500/99/1000").size(), 5u);
}

TEST_F(Downloads, WhatWillNotPassIsNotTriedAgain) {
  expect_refused(request("/status/404/99/1"), ErrorCode::kNotFound, "nothing at this address");
  expect_refused(request("/status/401/99/1"), ErrorCode::kUnauthenticated, "key");
  expect_refused(request("/status/403/99/1"), ErrorCode::kPermissionDenied, "403");
  expect_refused(request("/status/400/99/1"), ErrorCode::kUnavailable, "400");
  for (const char* path : {"/status/404", "/status/401", "/status/403", "/status/400"}) {
    EXPECT_EQ(asked(path).size(), 1u) << path;
  }
}

TEST_F(Downloads, SlownessHasAnEnd) {
  const auto begin = std::chrono::steady_clock::now();
  DownloadRequest wanted = request("/stall/100000");
  wanted.network.attempts = 1;
  expect_refused(wanted, ErrorCode::kDeadlineExceeded, "");
  wanted.url = server().url("/mute");
  expect_refused(wanted, ErrorCode::kDeadlineExceeded, "");
  wanted.url = server().url("/trickle/100000");
  expect_refused(wanted, ErrorCode::kDeadlineExceeded, "");
  wanted.network.stall_timeout = 60s;
  wanted.network.total_timeout = 500ms;
  expect_refused(wanted, ErrorCode::kDeadlineExceeded, "");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 12s);
}

TEST_F(Downloads, RedirectsAreFollowedHopByHop) {
  expect_brought(request("/chain/5/1000"), safetensors(1000));
  expect_brought(request("/redirect?to=/plain/1001"), safetensors(1001));
  expect_refused(request("/chain/6/1000"), ErrorCode::kUnavailable, "after 5 redirects");
  expect_refused(request("/loop"), ErrorCode::kUnavailable, "after 5 redirects");
  expect_refused(request("/unplaced"), ErrorCode::kPermissionDenied, "empty");
}

TEST_F(Downloads, RedirectsToForbiddenPlacesReachNoSocket) {
  const std::string forbidden = "127.0.0.2:" + std::to_string(server().forbidden);
  const std::string plain = "127.0.0.1:" + std::to_string(server().plain);
  const int plain_before = connections("plain");
  expect_refused(request("/redirect?to=https://" + forbidden + "/plain/1"),
                 ErrorCode::kPermissionDenied, "a loopback address");
  expect_refused(request("https://" + forbidden + "/plain/1"), ErrorCode::kPermissionDenied,
                 "a loopback address");
  expect_refused(request("/redirect?to=http://" + plain + "/plain/1"), ErrorCode::kPermissionDenied,
                 "not https");
  expect_refused(request("/redirect?to=file:///etc/passwd"), ErrorCode::kPermissionDenied,
                 "https://");
  expect_refused(request("/redirect?to=https://user@127.0.0.1/"), ErrorCode::kPermissionDenied,
                 "user name");
  expect_refused(request("/redirect?to=https://2130706433/"), ErrorCode::kPermissionDenied,
                 "number");
  for (const char* address :
       {"10.0.0.1", "192.168.0.1", "172.16.0.1", "100.64.0.1", "169.254.169.254", "0.0.0.0",
        "198.18.0.1", "224.0.0.1", "255.255.255.255", "[::1]", "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]", "[fd00:ec2::254]", "[fe80::1]", "[2002:7f00:1::]"}) {
    expect_refused(request("/redirect?to=https://" + std::string(address) + "/x"),
                   ErrorCode::kPermissionDenied, "address");
  }
  EXPECT_EQ(connections("forbidden"), 0) << "not even a connection";
  EXPECT_EQ(connections("plain"), plain_before);
}

TEST_F(Downloads, NamesAreHeldAgainstTheAddressTheyHave) {
  DownloadRequest wanted =
      request("https://localhost:" + std::to_string(server().main) + "/plain/9");
  const int before = connections("main");
  wanted.network.allow = {};
  expect_refused(wanted, ErrorCode::kPermissionDenied, "a loopback address");
  EXPECT_EQ(connections("main"), before + 1) << "only the log's own connection";
  wanted.network.allow = rules().allow;
  expect_brought(wanted, safetensors(9));
}

// A name of a stranger's may have any addresses, and others the next time it is looked up.
TEST_F(Downloads, ANameWithOneForbiddenAddressIsNotConnectedToAtAll) {
  const std::string url = "https://name.example:" + std::to_string(server().main) + "/plain/9";
  int asked = 0;
  const auto with = [&](std::vector<std::string> addresses) {
    DownloadRequest wanted = request(url);
    wanted.network.look_up = [addresses, &asked](const std::string& host) {
      EXPECT_EQ(host, "name.example");
      ++asked;
      std::vector<IpAddress> list;
      for (const std::string& address : addresses) list.push_back(parse_address(address).value());
      return list;
    };
    return wanted;
  };
  for (const char* forbidden : {"10.0.0.1", "169.254.169.254", "::1", "fd00:ec2::254"}) {
    for (const auto& addresses : {std::vector<std::string>{"1.1.1.1", forbidden},
                                  std::vector<std::string>{forbidden, "1.1.1.1"}}) {
      asked = 0;
      expect_refused(with(addresses), ErrorCode::kPermissionDenied, "address of name.example is");
      EXPECT_EQ(asked, 1);
    }
  }
  // Of a name with allowed addresses those are used; the certificate is for another name.
  expect_refused(with({"::1", "127.0.0.1"}), ErrorCode::kPermissionDenied, "certificate");
  DownloadRequest nowhere = request(url);
  nowhere.network.attempts = 1;
  nowhere.network.look_up = [](const std::string&) -> Result<std::vector<IpAddress>> {
    return Error{ErrorCode::kUnavailable, "Could not resolve host", true};
  };
  expect_refused(nowhere, ErrorCode::kUnavailable, "Could not resolve host");
  DownloadRequest slow = request(url);
  slow.network.attempts = 1;
  slow.network.connect_timeout = std::chrono::milliseconds(50);
  slow.network.look_up = [](const std::string&) -> Result<std::vector<IpAddress>> {
    std::this_thread::sleep_for(std::chrono::milliseconds(400));
    return std::vector<IpAddress>{};
  };
  expect_refused(slow, ErrorCode::kDeadlineExceeded, "took too long");
}

TEST_F(Downloads, PlainHttpIsForAllowedAddressesAlone) {
  const std::string url = "http://127.0.0.1:" + std::to_string(server().plain) + "/plain/77";
  DownloadRequest wanted = request(url);
  expect_brought(wanted, safetensors(77));
  wanted.network.allow = {};
  expect_refused(wanted, ErrorCode::kPermissionDenied, "loopback");
  // 192.88.99.1 and the like would be refused as special; a public address is refused as plain.
  expect_refused(request("http://1.1.1.1/x"), ErrorCode::kPermissionDenied, "plain http");
  expect_refused(request("https://1.1.1.1:25/x"), ErrorCode::kPermissionDenied, "port 25");
}

TEST_F(Downloads, CertificatesAreChecked) {
  DownloadRequest wanted = request("/plain/1");
  wanted.network.ca_file.clear();
  expect_refused(wanted, ErrorCode::kPermissionDenied, "certificate is not trusted");
  wanted.network.ca_file = folder_.parent_path() / "nowhere.pem";
  expect_refused(wanted, ErrorCode::kIo, "");
}

TEST_F(Downloads, ProxiesOfTheEnvironmentAreNotUsed) {
  setenv("https_proxy", "http://127.0.0.1:9", 1);
  setenv("ALL_PROXY", "http://127.0.0.1:9", 1);
  expect_brought(request("/plain/12"), safetensors(12));
  unsetenv("https_proxy");
  unsetenv("ALL_PROXY");
}

TEST_F(Downloads, AKeyGoesToItsOwnHostOnly) {
  const std::string here = "127.0.0.1:" + std::to_string(server().main);
  const std::string there = "127.0.0.1:" + std::to_string(server().other);
  DownloadRequest wanted = request("/redirect?to=https://" + there + "/plain/31");
  wanted.network.headers = {{here, "Authorization", "Bearer sesame"}};
  expect_brought(wanted, safetensors(31));
  const auto first = asked("/redirect?to=https://" + there + "/plain/31").at(0);
  EXPECT_EQ(first["headers"]["Authorization"], "Bearer sesame");
  const auto second = asked("/plain/31").at(0);
  EXPECT_EQ(second["server"], "other");
  EXPECT_FALSE(second["headers"].contains("Authorization"));
  EXPECT_EQ(second["headers"]["Accept-Encoding"], "identity");

  wanted = request("/status/403/99/2?token=hidden");
  wanted.network.headers = {{here, "Authorization", "Bearer sesame"}};
  const auto refused = download(wanted);
  ASSERT_FALSE(refused.ok());
  for (const char* secret : {"sesame", "hidden"}) {
    EXPECT_EQ(refused.error().message.find(secret), std::string::npos) << refused.error().message;
  }
  wanted.network.headers = {{here, "Authorization", "Bearer sesame\r\nX-Evil: 1"}};
  const auto broken = download(wanted);
  ASSERT_FALSE(broken.ok());
  EXPECT_EQ(broken.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(broken.error().message.find("sesame"), std::string::npos) << broken.error().message;
}

TEST_F(Downloads, OneFileHasOneWriter) {
  DownloadRequest wanted = request("/paced/1000000?writers");
  wanted.connections = 1;
  std::atomic<bool> begun = false;
  wanted.progress = [&](const Progress& progress) { begun = begun || progress.done > 0; };
  std::thread first([&] { expect_brought(wanted, safetensors(1'000'000)); });
  while (!begun) std::this_thread::sleep_for(5ms);
  const auto second = download(request("/plain/1000"));
  first.join();
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kUnavailable);
  EXPECT_TRUE(second.error().retryable);
}

TEST_F(Downloads, AFullDiskIsSaidOnce) {
  DownloadRequest wanted = request("/plain/100000");
  wanted.file = folder_ / "nowhere" / "file";
  expect_refused(wanted, ErrorCode::kNotFound, "nowhere");
  wanted.file = folder_;
  expect_refused(wanted, ErrorCode::kInvalidArgument, "is a folder");
}

TEST_F(Downloads, TextsAreFetchedWithinTheirCap) {
  EXPECT_EQ(fetch({server().url("/text/1000"), 1000, rules()}).value(), std::string(1000, 'x'));
  const auto long_text = fetch({server().url("/text/1001"), 1000, rules()});
  ASSERT_FALSE(long_text.ok());
  EXPECT_EQ(long_text.error().code, ErrorCode::kInvalidModel);
}

}  // namespace
}  // namespace limner::platform::http
