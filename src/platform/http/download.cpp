#include "platform/http/download.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/file_hash.h"
#include "platform/http/attempt.h"
#include "platform/http/content.h"

namespace limner::platform::http {
namespace {

namespace fs = std::filesystem;

// Coming so far earns a new set of tries.
constexpr std::uint64_t kProgressBytes = 64u << 10;

std::string lower_hex(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

void check_request(const DownloadRequest& request) {
  const auto refuse = [](const std::string& why) {
    throw Failure(ErrorCode::kInvalidArgument, "[download] " + why);
  };
  const std::string digits = lower_hex(request.sha256);
  if (!digits.empty() &&
      (digits.size() != 64 || digits.find_first_not_of("0123456789abcdef") != std::string::npos)) {
    refuse("a SHA-256 has 64 hexadecimal digits");
  }
  if (request.file.filename().empty() || fs::is_directory(request.file)) {
    refuse(fmt::format("want a file to write, and {} is a folder", request.file.string()));
  }
  if (request.connections < 1 || request.connections > 64) refuse("want 1 to 64 connections");
  if (request.min_piece == 0) refuse("want pieces of at least a byte");
}

// A file that an earlier call brought needs no connection.
std::optional<Downloaded> already_there(const DownloadRequest& request, const Tries& tries) {
  if (request.sha256.empty() || !fs::is_regular_file(request.file)) return std::nullopt;
  const std::string hash = file_sha256(request.file, [&] { tries.check(); }).value_or_throw();
  if (hash != lower_hex(request.sha256)) return std::nullopt;
  return Downloaded{request.file, fs::file_size(request.file), hash, ""};
}

// What is wrong with a complete part ends it. Where the part was put together from several tries,
// a server that mixed up its versions may be the reason, and once more from the beginning may help.
Downloaded verify(const DownloadRequest& request, const Url& url, PartFile& part,
                  const Tries& tries, bool pieced_together) {
  try {
    check_file(part.path(), request.content, url.shown());
    Downloaded done{request.file, part.done(),
                    file_sha256(part.path(), [&] { tries.check(); }).value_or_throw(),
                    part.identity().etag};
    if (!request.sha256.empty() && done.sha256 != lower_hex(request.sha256)) {
      throw Failure(ErrorCode::kInvalidModel,
                    fmt::format("[download] {}: want SHA-256 {}, got {}", url.shown(),
                                lower_hex(request.sha256), done.sha256));
    }
    return done;
  } catch (const Failure& failure) {
    Error error = failure.error();
    if (error.code != ErrorCode::kInvalidModel) throw;
    part.discard();
    error.retryable = pieced_together;
    throw Failure(std::move(error));
  }
}

Downloaded run(const DownloadRequest& request) {
  check_request(request);
  const Url url = parse_url(request.url).value_or_throw();
  Tries tries(request.network, request.stop);
  if (auto there = already_there(request, tries)) return *there;
  PartFile part(request.file, url);
  int connections = request.connections;
  bool pieced_together = part.resumable();
  while (true) {
    const std::uint64_t before = part.done();
    try {
      Attempt(request, url, part, tries, connections).run();
      const Downloaded done = verify(request, url, part, tries, pieced_together);
      part.publish();
      return done;
    } catch (const Failure& failure) {
      if (failure.error().code == ErrorCode::kInvalidModel) part.discard();
      part.checkpoint(true);
      pieced_together = part.resumable();
      if (part.resumable() && part.done() >= before + kProgressBytes) tries.progressed();
      tries.wait_or_throw(failure);
    }
  }
}

class Text : public Receiver {
 public:
  explicit Text(std::uint64_t most) : most_(most) {}

  bool on_response(const Response& response) override {
    if (response.status != 200) fail_by_status(response);
    const auto encoding = response.header("content-encoding");
    if (!encoding.empty() && encoding != "identity") {
      throw Failure(ErrorCode::kInvalidModel,
                    fmt::format("[download] {}: the answer is compressed ({})",
                                response.url.shown(), encoding));
    }
    return true;
  }
  bool on_body(std::span<const std::byte> bytes) override {
    if (bytes.size() > most_ - text.size()) {
      throw Failure(ErrorCode::kInvalidModel,
                    fmt::format("[download] the answer has more than {} bytes", most_));
    }
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return true;
  }

  std::string text;

 private:
  std::uint64_t most_;
};

std::string fetch_once(const FetchRequest& request, const Url& url, const Tries& tries) {
  Text answer(request.max_bytes);
  Client client(request.network);
  client.start(url, {}, answer);
  while (true) {
    for (const Outcome& outcome : client.run(std::chrono::milliseconds(100))) {
      if (outcome.failure) std::rethrow_exception(outcome.failure);
      return std::move(answer.text);
    }
    tries.check();
  }
}

// The front door's one catch.
template <typename T, typename Body>
Result<T> guarded(Body body) {
  try {
    return body();
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const fs::filesystem_error& error) {
    return Error{ErrorCode::kIo, fmt::format("[download] {}", error.what())};
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kOutOfMemory, "[download] no memory"};
  }
}

}  // namespace

Result<Downloaded> download(const DownloadRequest& request) {
  return guarded<Downloaded>([&] { return run(request); });
}

Result<std::string> fetch(const FetchRequest& request) {
  return guarded<std::string>([&] {
    const Url url = parse_url(request.url).value_or_throw();
    Tries tries(request.network, request.stop);
    while (true) {
      try {
        return fetch_once(request, url, tries);
      } catch (const Failure& failure) {
        tries.wait_or_throw(failure);
      }
    }
  });
}

}  // namespace limner::platform::http
