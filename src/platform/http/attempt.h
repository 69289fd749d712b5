// Attempt: one try at what is missing of a file, over one connection or several.
#pragma once

#include <list>
#include <memory>
#include <vector>

#include "platform/http/client.h"
#include "platform/http/download.h"
#include "platform/http/part_file.h"
#include "platform/http/retry.h"

namespace limner::platform::http {

// The first connection asks for everything from the first gap on. Where the server takes ranges,
// further connections ask for later parts, and the first one stops where theirs begin. One of them
// failing costs only its own part; the last one failing ends the attempt. Used by one thread.
class Attempt {
 public:
  // `connections` is lowered when the server turns out not to bear so many. All are kept by
  // reference.
  Attempt(const DownloadRequest& request, const Url& url, PartFile& part, Tries& tries,
          int& connections);
  ~Attempt();

  // Returns when the part is complete. Throws Failure.
  void run();

 private:
  class Worker;

  void start_workers();
  void stop_workers();
  void start(Segment& segment, bool to_end);
  void finish(const Outcome& outcome);
  void accept(Worker& worker, const Response& response);
  void admit(const Response& response, std::optional<std::uint64_t> length) const;
  bool take(Worker& worker, std::span<const std::byte> bytes);
  void look_at_head(std::uint64_t offset, std::span<const std::byte> bytes);
  void report() const;

  const DownloadRequest& request_;
  const Url& url_;
  PartFile& part_;
  Tries& tries_;
  int& connections_;
  bool ranges_ = false;  // the server has shown that it takes them
  std::vector<std::byte> head_;
  bool head_checked_ = false;
  std::list<Worker> workers_;
  Client client_;  // last: its transfers point into workers_, and end first
};

}  // namespace limner::platform::http
