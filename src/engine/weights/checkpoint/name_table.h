// The two spellings of a network's tensor names: the single-file checkpoints' own (those of the
// CompVis, Stability and OpenCLIP training code, "ldm" here) and diffusers'.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace limner::engine::weights {

// What happens to a tensor's shape on the way from ldm to diffusers.
enum class TensorForm {
  kSame,
  kSqueezed,    // [a, b, 1, 1] -> [a, b]: attention of the VAE, 1x1 convolutions there
  kTransposed,  // [a, b] -> [b, a]: OpenCLIP's text_projection is multiplied from the right
  kThirds,      // [3a, ...] -> three of [a, ...]: OpenCLIP keeps query, key and value in one
};

struct RenamedTensor {
  std::string name;  // kThirds: of the first third
  TensorForm form = TensorForm::kSame;
};

// The names of a tensor set, sorted, without the component's prefix.
using NameSet = std::set<std::string, std::less<>>;
bool has_prefix(const NameSet& names, std::string_view prefix);

// Immutable. Pairs of name prefixes; the longest that fits counts.
class NameTable {
 public:
  void add(std::string ldm, std::string diffusers, TensorForm form = TensorForm::kSame);

  // Nothing for a name that the network does not have. From diffusers, the three parts of a
  // kThirds tensor all give the one they are part of; part_of tells which part each is.
  std::optional<RenamedTensor> to_diffusers(std::string_view ldm) const;
  std::optional<RenamedTensor> to_ldm(std::string_view diffusers) const;

 private:
  struct Entry {
    std::string other;
    TensorForm form;
  };
  using Side = std::map<std::string, Entry, std::less<>>;
  static std::optional<RenamedTensor> look_up(const Side& side, std::string_view name);
  Side from_ldm_, from_diffusers_;
};

// 0, 1, 2 for names of a query, key and value projection of transformers' CLIP attention.
int part_of(std::string_view diffusers);
// The three names whose first is `query`.
std::vector<std::string> thirds_of(std::string_view query);

// The tables need to know how many blocks there are; they read that off the names, which may be of
// either spelling. An empty set gives an empty table.
NameTable unet_names(const NameSet& names);
NameTable vae_names(const NameSet& names);
// OpenCLIP's text tower; `names` are those of ldm or of transformers with the "text_model." prefix.
NameTable open_clip_names(const NameSet& names);
// CLIPTextModel inside a checkpoint has transformers' own names; some old files lack "text_model.".
NameTable clip_names(const NameSet& names);

}  // namespace limner::engine::weights
