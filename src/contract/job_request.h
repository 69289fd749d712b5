// JobRequest and JobResult: what a gateway writes into a job and what a worker writes back. Plain
// data, and its text form in the job's row: JSON of our own, read and written only here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "contract/artifact.h"
#include "contract/generation_request.h"

namespace limner::contract {

// An adapter by the name of a file in the adapter folders, or by URL: one of the two.
struct AdapterChoice {
  std::string name{};
  std::string url{};
  double weight = 1.0;
  std::string sha256{};  // of the file; "": not checked
  bool operator==(const AdapterChoice&) const = default;
};

struct OutputChoice {
  std::string format = "png";              // png, jpeg, webp, avif
  int quality = 90;                        // 1..100, of the lossy formats
  std::vector<std::int64_t> thumbnails{};  // longest sides in pixels
  std::string retention = "hot";           // hot, warm, cold
  bool operator==(const OutputChoice&) const = default;
};

struct WebhookChoice {
  std::string url{};                  // "": none
  std::vector<std::string> events{};  // "completed"; empty: every terminal one
  std::string secret{};               // "whsec_..."; "": the account's own
  bool operator==(const WebhookChoice&) const = default;
};

// The names that WebhookChoice::events may hold.
const std::vector<std::string>& webhook_events();

// A request whose every wish is spelled out: templates are resolved, the seed is chosen. The worker
// validates it again, against the model it holds.
struct JobRequest {
  GenerationRequest picture{};
  std::string model{};          // a name of the catalog
  std::string template_name{};  // "": none; told back to the client
  std::vector<AdapterChoice> adapters{};
  OutputChoice output{};
  WebhookChoice webhook{};
  std::string metadata{};     // the client's own JSON, told back as it came; "": none
  std::string traceparent{};  // W3C trace context of the request that made the job
};

// Milliseconds.
struct Timings {
  double queue = 0.0, encode = 0.0, denoise = 0.0, decode = 0.0, post = 0.0, deliver = 0.0;
};

struct JobResult {
  std::vector<Artifact> images{};
  std::string model_name{};
  std::string model_hash{};  // SHA-256 of its weights; "" while it is not computed
  Timings timings{};
  std::int64_t steps = 0;  // model calls of all pictures, as "progress" counts them; 0: not noted
  std::vector<std::string> warnings{};  // e.g. what of the prompt was cut
};

// Equal values give equal texts. Reading takes what this and older versions wrote, and refuses
// everything else (kInternal: the text is our own).
std::string to_text(const JobRequest& request);
std::string to_text(const JobResult& result);
Result<JobRequest> job_request_from_text(std::string_view text);
Result<JobResult> job_result_from_text(std::string_view text);

// One picture, as the "image" event of a job carries it.
std::string to_text(const Artifact& artifact);
Result<Artifact> artifact_from_text(std::string_view text);

}  // namespace limner::contract
