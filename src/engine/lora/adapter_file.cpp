#include "engine/lora/adapter_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/system_memory.h"
#include "engine/lora/key_spelling.h"
#include "engine/lora/peft_config.h"
#include "engine/weights/finite.h"
#include "engine/weights/message_text.h"

namespace limner::engine::lora {
namespace {

using weights::DType;
using weights::SafetensorsFile;
using weights::TensorView;

struct Wanted {
  Kind kind;
  const char* name;
  std::vector<std::string_view> all;  // parts without which a module is incomplete
};

const std::vector<Wanted>& kinds() {
  static const std::vector<Wanted> list = {{Kind::kLora, "LoRA", {"down", "up"}},
                                           {Kind::kLoha, "LoHa", {"w1_a", "w1_b", "w2_a", "w2_b"}},
                                           {Kind::kLokr, "LoKr", {}},
                                           {Kind::kGlora, "GLoRA", {"a1", "a2", "b1", "b2"}},
                                           {Kind::kIa3, "(IA)3", {}},
                                           {Kind::kOft, "OFT", {}},
                                           {Kind::kBoft, "BOFT", {}},
                                           {Kind::kFull, "full difference", {}}};
  return list;
}

const Wanted& entry(Kind kind) {
  return *std::ranges::find(kinds(), kind, &Wanted::kind);
}

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw Failure(ErrorCode::kInvalidModel, where + ": " + what);
}

// A module while its tensors are gathered.
struct Draft {
  std::map<std::string, TensorView, std::less<>> parts;
  std::vector<std::string> keys;
  std::optional<Kind> kind;
};

void check_tensor(const std::string& key, const TensorView& view, const std::string& where) {
  const bool number = view.dtype == DType::kF16 || view.dtype == DType::kBF16 ||
                      view.dtype == DType::kF32 || view.dtype == DType::kF64;
  if (!number) {
    refuse(where, fmt::format("tensor {} is stored as {}; want F16, BF16, F32 or F64",
                              weights::quote(key), weights::name(view.dtype)));
  }
  if (view.bytes.empty()) refuse(where, fmt::format("tensor {} is empty", weights::quote(key)));
}

// LoKr keeps each of its two matrices whole or as a product.
void check_lokr(const Module& module, const std::string& where) {
  for (const std::string matrix : {"w1", "w2"}) {
    const bool whole = module.has(matrix);
    const bool product = module.has(matrix + "_a") && module.has(matrix + "_b");
    if (whole == product) {
      refuse(where, fmt::format("{}: want either lokr_{} or both lokr_{}_a and lokr_{}_b",
                                weights::quote(module.name), matrix, matrix, matrix));
    }
  }
}

// Kinds that LyCORIS and PEFT write in ways of their own: one of them, whole.
void check_alternatives(const Module& module, const std::string& where) {
  using Sets = std::vector<std::vector<std::string_view>>;
  const Sets sets = module.kind == Kind::kIa3    ? Sets{{"weight", "on_input"}, {"l"}}
                    : module.kind == Kind::kOft  ? Sets{{"blocks"}, {"skew"}, {"old_blocks"}}
                    : module.kind == Kind::kBoft ? Sets{{"blocks"}, {"butterfly", "factors"}}
                                                 : Sets{{}};
  const auto whole = std::ranges::count_if(sets, [&](const auto& parts) {
    return std::ranges::all_of(parts, [&](std::string_view part) { return module.has(part); });
  });
  if (whole == 1) return;
  std::vector<std::string> ways;
  for (const auto& parts : sets) ways.push_back(fmt::format("{}", fmt::join(parts, " and ")));
  refuse(where,
         fmt::format("{}: a {} module wants the tensors {}, one of these ways",
                     weights::quote(module.name), name(module.kind), fmt::join(ways, ", or ")));
}

void check_complete(const Module& module, const std::string& where) {
  check_alternatives(module, where);
  for (const std::string_view part : entry(module.kind).all) {
    if (!module.has(part)) {
      refuse(where, fmt::format("{}: a {} module without its {} tensor",
                                weights::quote(module.name), name(module.kind), part));
    }
  }
  if (module.kind == Kind::kLokr) check_lokr(module, where);
  if (module.is_dora() && module.kind == Kind::kFull && !module.has("diff")) {
    refuse(where, fmt::format("{}: a DoRA magnitude without a difference of the weight",
                              weights::quote(module.name)));
  }
  if (module.kind == Kind::kLoha && module.has("t1") != module.has("t2")) {
    refuse(where, fmt::format("{}: want both hada_t1 and hada_t2, or neither",
                              weights::quote(module.name)));
  }
}

Module finished(const std::string& layer, Draft draft, const PeftConfig& peft,
                const std::string& where) {
  Module module;
  module.name = layer;
  module.kind = draft.kind.value_or(Kind::kFull);
  if (const auto alpha = draft.parts.find("alpha"); alpha != draft.parts.end()) {
    const std::string key = where + ": tensor " + weights::quote(layer + ".alpha");
    module.alpha = scalar_of(alpha->second, key);
    draft.parts.erase(alpha);
  } else if (module.kind != Kind::kOft && module.kind != Kind::kFull) {
    const PeftConfig::Scaling scaling = peft.scaling_of(layer);
    module.alpha = scaling.alpha;
    module.stated_rank = scaling.rank;
    module.rank_stabilised = scaling.rank_stabilised;
  }
  module.neumann_terms = peft.neumann_terms();
  module.parts = std::move(draft.parts);
  if (module.kind == Kind::kOft && module.has("blocks") &&
      module.part("blocks").shape.size() == 4) {
    module.kind = Kind::kBoft;
  }
  check_complete(module, where);
  return module;
}

using Drafts = std::map<std::string, Draft>;

Drafts gathered(const SafetensorsFile& file, std::vector<std::string>& unknown,
                const std::string& where) {
  Drafts drafts;
  for (const auto& [key, view] : file.tensors()) {
    const auto spelled = split_key(key);
    if (!spelled) {
      unknown.push_back(key);
      continue;
    }
    const bool number = spelled->part == "alpha" || spelled->part == "on_input";
    if (!number) check_tensor(key, view, where);
    Draft& draft = drafts[spelled->layer];
    draft.keys.push_back(key);
    if (spelled->kind && draft.kind && *spelled->kind != *draft.kind) {
      refuse(where,
             fmt::format("{} has tensors of a {} and of a {} module",
                         weights::quote(spelled->layer), name(*draft.kind), name(*spelled->kind)));
    }
    if (spelled->kind) draft.kind = spelled->kind;
    if (!draft.parts.emplace(spelled->part, view).second) {
      refuse(where, fmt::format("{} has two '{}' tensors, in two spellings",
                                weights::quote(spelled->layer), spelled->part));
    }
  }
  return drafts;
}

// Whether the tensors gathered under one name are a module at all.
bool is_module(const Draft& draft) {
  return draft.kind.has_value() || draft.parts.contains("diff_b");
}

void load(SafetensorsFile& file, const std::string& where) {
  const std::uint64_t room = available_memory_bytes();
  if (file.file_size() > room) {
    throw Failure(ErrorCode::kOutOfMemory,
                  fmt::format("{}: has {} bytes, and {} are free", where, file.file_size(), room));
  }
  file.load().value_or_throw();
}

void bring_alphas(const SafetensorsFile& file, const Drafts& drafts, const std::string& where) {
  for (const auto& [layer, draft] : drafts) {
    const auto alpha = draft.parts.find("alpha");
    if (alpha == draft.parts.end()) continue;
    file.prefetch(alpha->second).value_or_throw();
    if (weights::all_finite(alpha->second.dtype, alpha->second.bytes)) continue;
    refuse(where,
           fmt::format("tensor {} holds a NaN or an infinity", weights::quote(layer + ".alpha")));
  }
}

}  // namespace

std::string name(Kind kind) {
  return entry(kind).name;
}

std::string Module::key_of(std::string_view wanted) const {
  return fmt::format("{} ({})", weights::quote(name), wanted);
}

std::optional<std::int64_t> Module::rank() const {
  const auto rows = [&](std::string_view part_name) -> std::optional<std::int64_t> {
    const auto found = parts.find(part_name);
    if (found == parts.end() || found->second.shape.empty()) return std::nullopt;
    return found->second.shape[0];
  };
  switch (kind) {
    case Kind::kLora:
      return rows("down");
    case Kind::kLoha:
      return rows("w1_b");
    case Kind::kLokr:
      return has("w2_b") ? rows("w2_b") : rows("w1_b");
    case Kind::kGlora:
      return rows("b2");
    default:
      return std::nullopt;
  }
}

double Module::scale() const {
  const auto r = rank();
  const double wide = r ? static_cast<double>(*r) : stated_rank.value_or(0.0);
  if (!alpha || wide == 0.0) return 1.0;
  return *alpha / (rank_stabilised ? std::sqrt(wide) : wide);
}

Result<std::shared_ptr<const AdapterFile>> AdapterFile::read(const std::filesystem::path& path,
                                                             Depth depth) {
  using Backing = SafetensorsFile::Backing;
  const bool whole = depth == Depth::kWhole;
  auto opened = SafetensorsFile::open(path, whole ? Backing::kMemory : Backing::kMap);
  if (!opened.ok()) return opened.error();
  const std::string where = path.filename().string();
  try {
    std::shared_ptr<AdapterFile> adapter(new AdapterFile(std::move(*opened)));
    const PeftConfig peft = PeftConfig::of(path, adapter->metadata());
    auto drafts = gathered(adapter->file_, adapter->unknown_keys_, where);
    // Known by its names alone: a checkpoint of many gigabytes is refused before it is read.
    if (std::ranges::none_of(drafts, is_module, &Drafts::value_type::second)) {
      refuse(where,
             "is no adapter: none of its tensors has the name of an adapter's (as kohya, "
             "diffusers, PEFT, OneTrainer or LyCORIS write them)");
    }
    whole ? load(adapter->file_, where) : bring_alphas(adapter->file_, drafts, where);
    for (auto& [layer, draft] : drafts) {
      if (is_module(draft)) {
        adapter->modules_.push_back(finished(layer, std::move(draft), peft, where));
        if (whole) adapter->modules_.back().memory = adapter->file_.memory();
      } else {
        adapter->unknown_keys_.insert(adapter->unknown_keys_.end(), draft.keys.begin(),
                                      draft.keys.end());
      }
    }
    return std::shared_ptr<const AdapterFile>(std::move(adapter));
  } catch (const Failure& failure) {
    return failure.error();
  }
}

bool AdapterFile::owns(const void* address) const {
  TensorView place;
  place.bytes = {static_cast<const std::byte*>(address), 0};
  return file_.owns(place);
}

double scalar_of(const TensorView& view, const std::string& where) {
  const auto bits = [&](auto value) {
    if (view.bytes.size() != sizeof(value)) refuse(where, "want one number");
    std::memcpy(&value, view.bytes.data(), sizeof(value));
    return value;
  };
  switch (view.dtype) {
    case DType::kF64:
      return bits(double{});
    case DType::kF32:
      return static_cast<double>(bits(float{}));
    case DType::kBF16:
      return static_cast<double>(
          std::bit_cast<float>(static_cast<std::uint32_t>(bits(std::uint16_t{})) << 16));
    case DType::kF16: {
      const std::uint16_t half = bits(std::uint16_t{});
      const int exponent = (half >> 10) & 31, mantissa = half & 1023;
      const double magnitude =
          exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(mantissa + 1024, exponent - 25);
      return (half & 0x8000) != 0 ? -magnitude : magnitude;
    }
    case DType::kI64:
      return static_cast<double>(bits(std::int64_t{}));
    case DType::kI32:
      return static_cast<double>(bits(std::int32_t{}));
    case DType::kU8:
    case DType::kBool:
      return static_cast<double>(bits(std::uint8_t{}));
    default:
      refuse(where, fmt::format("want a number, got {}", weights::name(view.dtype)));
  }
}

}  // namespace limner::engine::lora
