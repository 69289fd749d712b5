// The body of POST /v1/generations becomes a contract::JobRequest, or every wrong field at once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "contract/catalog.h"
#include "contract/job_request.h"
#include "image/encode.h"
#include "platform/http/download.h"
#include "platform/templates/templates.h"

namespace limner::gateway::api_v1 {

struct BodyLimits {
  std::size_t most_bytes = std::size_t{1} << 20;
  std::int64_t most_pixels = std::int64_t{64} << 20;  // of all pictures of a request together
  std::size_t most_metadata = 4096;                   // bytes of JSON
};

struct BodyContext {
  const contract::Catalog& catalog;
  const platform::Templates* templates = nullptr;  // nullptr: this service has none
  // What webhooks and adapters named by URL may reach.
  const platform::http::NetworkRules& network;
  BodyLimits limits{};
  std::uint64_t random_seed = 0;  // taken when the body names no seed
};

struct GenerationBody {
  // Sizes, steps, guidance and seed are filled in: a second try draws the same.
  contract::JobRequest request{};
  std::string job_class{};  // as contract/job_cost.h reckons
  double work = 1.0;
  bool names_format = false;  // the body says output.format
  // SHA-256 of the body's meaning: equal for bodies that differ only in spaces, the order of
  // members and how numbers are written.
  std::string fingerprint{};
};

// Throws http::ProblemFailure: 400 for no JSON, 413, and 422 with the wrong fields.
GenerationBody read_generation_body(std::string_view body, const BodyContext& context);

}  // namespace limner::gateway::api_v1
