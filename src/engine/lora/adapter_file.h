// An adapter file (LoRA and its kin) as a list of modules, one per layer it changes, whatever
// program wrote it. Knows nothing of the model it will meet: layer names stay as spelled.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/weights/safetensors.h"

namespace limner::engine::lora {

// What is done to a layer's weight W. Formulas: modules.h. DoRA is no kind of its own: any kind may
// carry a `dora` part.
enum class Kind { kLora, kLoha, kLokr, kGlora, kIa3, kOft, kBoft, kFull };
std::string name(Kind kind);  // "LoRA", "LoHa", ...

// Parts by our names, whatever the spelling: down, up, mid (LoRA); w1_a .. t2 (LoHa); w1 .. t2
// (LoKr); a1, a2, b1, b2, bm (GLoRA); weight, on_input, and PEFT's l (IA3); blocks, rescale (OFT,
// BOFT) and PEFT's skew, old_blocks (OFT), butterfly, factors (BOFT); diff (full, norms); and
// beside any kind dora, magnitude (both DoRA), diff_b, and PEFT's up_b.
struct Module {
  std::string name;  // the layer as the file spells it
  Kind kind = Kind::kLora;
  std::map<std::string, weights::TensorView, std::less<>> parts;
  std::shared_ptr<const void> memory{};  // keeps what the parts point into
  std::optional<double> alpha;
  std::optional<double> stated_rank;  // where no tensor tells
  // Of the series that PEFT's OFT takes for the inverse in Cayley's map; absent: the inverse
  // itself.
  std::optional<int> neumann_terms;
  bool rank_stabilised = false;  // alpha / sqrt(rank) instead of alpha / rank

  bool has(std::string_view part) const { return parts.contains(part); }
  const weights::TensorView& part(std::string_view part) const { return parts.find(part)->second; }
  std::string key_of(std::string_view part) const;  // for messages: "NAME (PART)"
  // Of the low-rank product; nothing where the kind has none.
  std::optional<std::int64_t> rank() const;
  // What the product is multiplied with: alpha / rank, 1 where either is missing.
  double scale() const;
  bool is_dora() const { return has("dora") || has("magnitude"); }
};

// Immutable; shared by threads. Read whole, all its tensors are in memory: nothing that happens to
// the file afterwards changes them.
class AdapterFile {
 public:
  // kHeader reads no tensors but alphas: what the parts hold is neither looked at nor in memory,
  // and they must not be read.
  enum class Depth { kWhole, kHeader };
  // Reads kohya, diffusers, PEFT, OneTrainer and LyCORIS spellings from a safetensors file. Every
  // tensor is finite and every module complete afterwards. Alpha comes from the tensors, else from
  // the PEFT configuration in the header ("lora_adapter_metadata") or in an adapter_config.json
  // beside an adapter_model.safetensors. Fails with what SafetensorsFile::open says, or with
  // kInvalidModel naming the tensor.
  static Result<std::shared_ptr<const AdapterFile>> read(const std::filesystem::path& path,
                                                         Depth depth = Depth::kWhole);

  const std::vector<Module>& modules() const { return modules_; }  // sorted by name
  // Tensors that belong to no kind of adapter known here.
  const std::vector<std::string>& unknown_keys() const { return unknown_keys_; }
  const std::map<std::string, std::string, std::less<>>& metadata() const {
    return file_.metadata();
  }
  const std::filesystem::path& path() const { return file_.path(); }
  std::uint64_t bytes() const { return file_.file_size(); }
  // Whether `address` is in what memory() keeps.
  bool owns(const void* address) const;

 private:
  explicit AdapterFile(weights::SafetensorsFile file) : file_(std::move(file)) {}
  weights::SafetensorsFile file_;
  std::vector<Module> modules_;
  std::vector<std::string> unknown_keys_;
};

// A float of any stored type: alpha.
double scalar_of(const weights::TensorView& view, const std::string& where);

}  // namespace limner::engine::lora
