// Catalog: what this installation can draw with, as one moment saw it. The worker's side makes it,
// the gateway reads it: limits of a model are known before anything is loaded.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "contract/validate.h"

namespace limner::contract {

struct ModelCard {
  std::string name{};      // what `model` in a request says
  std::string family{};    // "sdxl"
  std::string pipeline{};  // "StableDiffusionXLPipeline"
  std::string hash{};      // SHA-256 of the weights; "" while it is not computed
  std::string problem{};   // why it cannot be used; "": it can
  std::uint64_t bytes = 0;
  bool loaded = false;        // a worker holds it
  bool takes_images = false;  // its family draws from `image` and `mask` as well as from words
  Limits limits{};
};

struct AdapterCard {
  std::string name{};  // what `loras[].name` says
  std::string kind{};  // "LoRA", "LoHa", ...
  std::string family{};
  std::vector<std::string> trigger_words{};
  std::string problem{};
  std::uint64_t bytes = 0;
};

struct Catalog {
  std::vector<ModelCard> models{};  // by name
  std::vector<AdapterCard> adapters{};
  std::string default_model{};
  std::size_t most_adapters = 16;  // of one request

  const ModelCard* model(std::string_view name) const;  // nullptr: there is none
  const AdapterCard* adapter(std::string_view name) const;
};

// Safe to call from many threads.
class CatalogSource {
 public:
  virtual ~CatalogSource() = default;
  virtual std::shared_ptr<const Catalog> catalog() const = 0;  // never null
};

}  // namespace limner::contract
