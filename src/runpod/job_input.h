// job_input: the `input` of a job as clients of the endpoint write it, and what is drawn for it.
// docs/runpod/generate.schema.json describes it to them.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "contract/catalog.h"
#include "contract/job_request.h"
#include "platform/http/download.h"

namespace limner::runpod {

struct InputContext {
  const contract::Catalog& catalog;
  const platform::http::NetworkRules& network;        // whom adapters may be fetched from
  std::uint64_t random_seed = 0;                      // taken when the input names none
  std::int64_t most_pixels = std::int64_t{64} << 20;  // of all pictures together
};

struct JobInput {
  contract::JobRequest request{};  // complete: size, steps, guidance and seed are filled in
  bool stream = false;             // every picture is to be told of as soon as it is there
  bool progress = false;           // and how far the drawing is
};

// Errors: kInvalidArgument naming every wrong field at once: of a wrong kind, out of the model's
// range, not known, or given twice under two names.
Result<JobInput> read_input(const nlohmann::json& input, const InputContext& context);

}  // namespace limner::runpod
