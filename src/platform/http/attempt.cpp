#include "platform/http/attempt.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "platform/disk_space.h"
#include "platform/http/content.h"

namespace limner::platform::http {
namespace {

constexpr std::chrono::milliseconds kTurn{100};

// The server's file is another one than that whose part is here.
class FileChanged : public Failure {
 public:
  explicit FileChanged(const Response& response)
      : Failure({ErrorCode::kUnavailable,
                 fmt::format("[download] {} changed while it was downloaded", response.url.shown()),
                 true}) {}
};

[[noreturn]] void refuse(ErrorCode code, const Response& response, const std::string& why) {
  throw Failure(code, fmt::format("[download] {}: {}", response.url.shown(), why));
}

struct ContentRange {
  std::uint64_t first = 0, last = 0, total = 0;
};

// "bytes 0-99/1000"
std::optional<ContentRange> parse_content_range(std::string_view text) {
  if (!text.starts_with("bytes ")) return std::nullopt;
  text.remove_prefix(6);
  ContentRange range;
  const auto number = [&text](std::uint64_t& value, std::string_view behind) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc()) return false;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (!text.starts_with(behind)) return false;
    text.remove_prefix(behind.size());
    return true;
  };
  if (!number(range.first, "-") || !number(range.last, "/") || !number(range.total, "") ||
      !text.empty() || range.first > range.last || range.last >= range.total) {
    return std::nullopt;
  }
  return range;
}

void check_encodings(const Response& response) {
  const auto encoding = response.header("content-encoding");
  if (!encoding.empty() && encoding != "identity") {
    refuse(
        ErrorCode::kInvalidModel, response,
        fmt::format("the answer is compressed ({}), though it was asked for as it is", encoding));
  }
  const auto transfer = response.header("transfer-encoding");
  if (!transfer.empty() && transfer != "chunked" && transfer != "identity") {
    refuse(ErrorCode::kInvalidModel, response,
           fmt::format("the answer has the transfer encoding {}", transfer));
  }
}

}  // namespace

class Attempt::Worker : public Receiver {
 public:
  Worker(Attempt& attempt, Segment& of, bool range, bool last)
      : segment(&of), ranged(range), to_end(last), from(of.next), attempt_(attempt) {}
  bool on_response(const Response& response) override {
    attempt_.accept(*this, response);
    return true;
  }
  bool on_body(std::span<const std::byte> bytes) override { return attempt_.take(*this, bytes); }

  Segment* segment;
  bool ranged;  // asks for a range, not for the file
  bool to_end;  // asks for all from its place on
  std::uint64_t from;

 private:
  Attempt& attempt_;
};

Attempt::Attempt(const DownloadRequest& request, const Url& url, PartFile& part, Tries& tries,
                 int& connections)
    : request_(request),
      url_(url),
      part_(part),
      tries_(tries),
      connections_(connections),
      client_(request.network) {}

Attempt::~Attempt() {
  stop_workers();
}

void Attempt::stop_workers() {
  for (Worker& worker : workers_) {
    client_.cancel(worker);
    part_.release(*worker.segment);
  }
  workers_.clear();
}

void Attempt::run() {
  if (!part_.resumable()) part_.begin({});
  start_workers();
  while (!part_.complete()) {
    for (const Outcome& outcome : client_.run(kTurn)) finish(outcome);
    tries_.check();
    report();
    part_.checkpoint(false);
    start_workers();
  }
}

void Attempt::start_workers() {
  std::list<Segment>& segments = part_.segments();
  const auto free = [&] {
    return std::find_if(segments.begin(), segments.end(),
                        [](const Segment& segment) { return !segment.taken; });
  };
  if (workers_.empty() && free() != segments.end()) start(*free(), true);
  while (ranges_ && static_cast<int>(workers_.size()) < connections_) {
    if (const auto next = free(); next != segments.end()) {
      start(*next, false);
      continue;
    }
    const auto largest = std::max_element(
        segments.begin(), segments.end(),
        [](const Segment& a, const Segment& b) { return a.missing() < b.missing(); });
    if (largest == segments.end() || largest->missing() < 2 * request_.min_piece) return;
    start(part_.split(*largest), false);
  }
}

void Attempt::start(Segment& segment, bool to_end) {
  segment.taken = true;
  const bool ranged = part_.identity().length.has_value();
  Worker& worker = workers_.emplace_back(*this, segment, ranged, to_end);
  std::vector<std::string> headers;
  if (ranged) {
    headers.push_back(to_end ? fmt::format("Range: bytes={}-", segment.next)
                             : fmt::format("Range: bytes={}-{}", segment.next, segment.end - 1));
    headers.push_back("If-Range: " + part_.identity().validator());
  }
  client_.start(url_, headers, worker);
}

void Attempt::finish(const Outcome& outcome) {
  const auto worker = std::find_if(workers_.begin(), workers_.end(),
                                   [&](Worker& each) { return &each == outcome.receiver; });
  Segment& segment = *worker->segment;
  const bool empty_handed = segment.next == worker->from && segment.missing() > 0;
  workers_.erase(worker);
  if (!outcome.failure && part_.identity().length == std::nullopt) part_.end_here(segment);
  part_.release(segment);
  try {
    if (outcome.failure) std::rethrow_exception(outcome.failure);
    if (empty_handed && part_.identity().length) {
      throw Failure({ErrorCode::kUnavailable,
                     fmt::format("[download] {} sent nothing of what was asked", url_.shown()),
                     true});
    }
  } catch (const FileChanged&) {
    stop_workers();
    part_.discard();
    throw;
  } catch (const Failure& failure) {
    const ErrorCode code = failure.error().code;
    const bool ours = code == ErrorCode::kIo || code == ErrorCode::kInvalidModel;
    if (workers_.empty() || ours) throw;
    connections_ = static_cast<int>(workers_.size());
  }
}

void Attempt::accept(Worker& worker, const Response& response) {
  const Identity now = identity_of(response);
  if (response.status == 416 && worker.ranged) throw FileChanged(response);
  if (response.status != 200 && response.status != 206) fail_by_status(response);
  check_encodings(response);
  const bool alone = workers_.size() == 1;
  if (response.status == 200 && worker.ranged) {
    const bool same = part_.identity().agrees_with(now);
    if (same) connections_ = 1;
    if (!alone && !same) throw FileChanged(response);
    if (!alone) refuse(ErrorCode::kUnavailable, response, "it ignores ranges");
  }
  admit(response, response.status == 200 ? now.length : part_.identity().length);
  if (response.status == 200) {
    // From the beginning, also where only the rest was asked for.
    part_.begin(now);
    head_.clear();
    if (part_.segments().empty()) part_.segments().push_back({});
    worker.segment = &part_.segments().front();
    worker.segment->taken = true;
    worker.from = 0;
    worker.to_end = true;
  } else {
    const auto range = parse_content_range(response.header("content-range"));
    if (!worker.ranged || !range || range->first != worker.segment->next) {
      if (alone && worker.ranged) throw FileChanged(response);
      refuse(ErrorCode::kUnavailable, response, "the answer is another range than was asked for");
    }
    if (range->total != part_.identity().length || !part_.identity().agrees_with(now)) {
      throw FileChanged(response);
    }
  }
  ranges_ = part_.identity().length && !part_.identity().validator().empty() &&
            (response.status == 206 || response.header("accept-ranges") == "bytes");
}

void Attempt::admit(const Response& response, std::optional<std::uint64_t> length) const {
  if (request_.content == Content::kSafetensors &&
      response.header("content-type").starts_with("text/html")) {
    refuse(ErrorCode::kInvalidModel, response,
           "wanted is a safetensors file, and this is a web page: perhaps one has to log in there");
  }
  if (!length) return;
  if (*length > request_.max_bytes) {
    refuse(ErrorCode::kInvalidModel, response,
           fmt::format("it has {} bytes, and {} are allowed", *length, request_.max_bytes));
  }
  require_space(request_.file.parent_path(),
                response.status == 200 ? *length : *length - part_.done());
}

bool Attempt::take(Worker& worker, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    Segment& segment = *worker.segment;
    if (segment.missing() == 0) {
      if (!worker.to_end || !part_.extend(segment)) return false;
      continue;
    }
    const auto piece = bytes.first(std::min<std::uint64_t>(bytes.size(), segment.missing()));
    look_at_head(segment.next, piece);
    if (piece.size() > request_.max_bytes - std::min(segment.next, request_.max_bytes)) {
      throw Failure(ErrorCode::kInvalidModel,
                    fmt::format("[download] {}: it has more than the {} bytes that are allowed",
                                url_.shown(), request_.max_bytes));
    }
    part_.write(segment, piece);
    bytes = bytes.subspan(piece.size());
  }
  return true;
}

void Attempt::look_at_head(std::uint64_t offset, std::span<const std::byte> bytes) {
  if (head_checked_ || offset != head_.size()) return;
  const std::size_t more = std::min(bytes.size(), kHeadBytes - head_.size());
  head_.insert(head_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(more));
  if (head_.size() < kHeadBytes) return;
  check_head(head_, part_.identity().length, request_.content, url_.shown());
  head_checked_ = true;
}

void Attempt::report() const {
  if (request_.progress) request_.progress({part_.done(), part_.identity().length});
}

}  // namespace limner::platform::http
