// CatalogBuilder: what this installation can draw with, read from its folders without loading
// anything.
#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "contract/catalog.h"
#include "engine/engine.h"
#include "worker/model_cache.h"

namespace limner::worker {

struct CatalogOptions {
  // The first folder that has a name wins. Folders that are not there hold nothing.
  std::vector<std::filesystem::path> model_folders{};
  std::vector<std::filesystem::path> adapter_folders{};
  std::string default_model{};     // "": the first usable one by name
  engine::Composition loading{};   // how models are loaded; its own model is not looked at
  std::filesystem::path hashes{};  // where hashes of models are remembered; "": nowhere
  std::size_t most_adapters = 16;  // of one request
  // What the operator allows of any model; a model's own limits may be tighter.
  std::int64_t largest_side = 16384;
  std::int64_t most_steps = 1000;
  std::int64_t most_images = 1024;
  std::chrono::milliseconds look_every{2000};  // at the folders; 0: only refresh() looks
};

// Any thread may call. Two threads of its own look at the folders and hash models.
class CatalogBuilder final : public contract::CatalogSource {
 public:
  // Looks once before it returns. `loaded` says which models are in memory. `log` must outlive
  // this.
  CatalogBuilder(CatalogOptions options, std::function<std::vector<std::string>()> loaded,
                 Log& log);
  ~CatalogBuilder() override;

  std::shared_ptr<const contract::Catalog> catalog() const override;  // never waits
  // How a model of the catalog is loaded; nothing where it has none of that name.
  std::optional<ModelPlace> place(std::string_view name) const;
  // Looks at the folders now.
  void refresh();
  // Returns when every usable model has its hash, or it is known to have none.
  void wait_for_hashes();

 private:
  struct Model {
    ModelPlace place{};
    contract::ModelCard card{};
    bool hash_tried = false;
  };
  struct Adapter {
    std::string stamp{};
    contract::AdapterCard card{};
  };

  std::map<std::string, std::filesystem::path> find_models() const;
  Model read_model(const std::string& name, const std::filesystem::path& path,
                   std::string stamp) const;
  std::map<std::string, Adapter> read_adapters() const;
  void publish();  // under mutex_
  void look(std::stop_token stop);
  void hash(std::stop_token stop);
  bool hash_one(std::stop_token stop);  // false: nothing to do

  const CatalogOptions options_;
  const std::function<std::vector<std::string>()> loaded_;
  Log& log_;
  std::mutex looking_;  // one refresh at a time
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::string, Model> models_;  // by mutex_, like all below
  std::map<std::string, Adapter> adapters_;
  std::shared_ptr<const contract::Catalog> catalog_;
  std::jthread hasher_, looker_;  // last: they end first
};

}  // namespace limner::worker
