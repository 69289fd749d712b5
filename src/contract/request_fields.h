// What every dialect that speaks JSON reads alike: the model, an adapter, and the limits of the
// model. What is wrong goes to the Fields it was read from.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "contract/catalog.h"
#include "contract/job_request.h"
#include "contract/json_fields.h"

namespace limner::contract {

// The card of `model`, or, where that is empty, of the default one, whose name it becomes; nullptr
// where there is none that can be used, which is noted.
const ModelCard* find_model(Fields& fields, std::string& model, const Catalog& catalog);

// An object of "name" or "url", "weight" and "sha256"; takes all that it may hold and ends it.
// `model`: that it must fit, where it is known. `check_url` says what is wrong with a URL.
AdapterChoice read_adapter(Fields& fields, const Catalog& catalog, const ModelCard* model,
                           const std::function<Result<void>(std::string_view url)>& check_url);

// Fills in size, steps, guidance and seed where the client left them to the model; nothing where
// the picture is beyond its limits, or all pictures together beyond `most_pixels`, which is noted.
struct Completion {
  std::int64_t most_pixels = 0;
  std::uint64_t random_seed = 0;  // taken when the request names none
};
std::optional<ValidRequest> complete(Fields& fields, GenerationRequest& picture,
                                     const ModelCard& model, const Completion& completion);

// An error's message as a field's: without the place "[webhook] " at its front.
std::string field_message(const Error& error);

}  // namespace limner::contract
