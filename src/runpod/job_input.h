// job_input: the `input` of a job as clients of the endpoint write it, and what is drawn for it.
// docs/runpod/*.schema.json describe it to them, a file for each kind.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "contract/catalog.h"
#include "contract/job_request.h"
#include "platform/http/download.h"
#include "platform/templates/templates.h"

namespace limner::runpod {

enum class JobKind : std::uint8_t {
  kGenerate,  // pictures in the answer, or on the volume
  kHeadshot,  // one picture for a user, in storage
};
std::string_view name(JobKind kind);  // "generate", "headshot"
std::optional<JobKind> kind_named(std::string_view name);

struct InputContext {
  const contract::Catalog& catalog;
  const platform::http::NetworkRules& network;        // whom adapters may be fetched from
  std::uint64_t random_seed = 0;                      // taken when the input names none
  std::int64_t most_pixels = std::int64_t{64} << 20;  // of all pictures together
  JobKind kind = JobKind::kGenerate;                  // of an input that names none
  const platform::Templates* templates = nullptr;     // null: there are none
  bool report_unknown = false;  // fields that are not known are told of, not refused
};

struct JobInput {
  JobKind kind = JobKind::kGenerate;
  bool lists_templates = false;    // nothing is drawn, and the rest is not set
  contract::JobRequest request{};  // complete: size, steps, guidance and seed are filled in
  bool stream = false;             // every picture is to be told of as soon as it is there
  bool progress = false;           // and how far the drawing is
  std::string user_id{};           // of a headshot
  // Paths below the volume; "": not given. {index} and {seed} in the last are filled in for each
  // picture.
  std::string image{}, mask{}, output_path{};
  bool include_images = true;                 // in the answer
  std::vector<std::string> unknown_fields{};  // where they are to be told of
};

// Without a model and without a template, the default template is taken where there is one, else
// the default model. Errors: kInvalidArgument naming every wrong field at once: of a wrong kind,
// out of the model's range, not known, or given twice under two names.
Result<JobInput> read_input(const nlohmann::json& input, const InputContext& context);

// Where a picture of a job goes on the volume.
std::string output_path_of(const JobInput& input, std::int64_t index, std::uint64_t seed);

}  // namespace limner::runpod
