// Structure-aware fuzzing of the adapter reader: files of every kind with parts missing, shapes and
// types wrong, names broken and numbers that are none are read and fitted to a model.
// Deterministic; LIMNER_FUZZ_SECONDS makes it run longer and LIMNER_FUZZ_SEED start elsewhere.
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "base/fuzzing.h"
#include "engine/lora/attach.h"
#include "engine/lora/bake.h"
#include "engine/lora/inspect.h"
#include "engine/lora/testing.h"

namespace limner::engine::lora {
namespace {

class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed) {}

  testing::Tensors adapter() {
    testing::Tensors tensors;
    for (std::uint64_t n = 1 + below(2); n > 0; --n) {
      const bool convolution = one_in(2);
      add_module(tensors, layer(convolution), convolution);
    }
    if (one_in(4))
      tensors[pick({"x", "a.alpha", "unet.conv.weight", "..", "lora_unet_.alpha"})] = at::ones({1});
    return tensors;
  }

 private:
  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  std::string pick(std::vector<std::string> list) { return list[below(list.size())]; }

  std::string layer(bool convolution) {
    if (one_in(10)) return pick({"unet.lin", "lora_unet_convolution", "", "unet.", "text_model"});
    return pick({"unet.", "lora_unet_", "base_model.model.", "lycoris_"}) +
           (convolution ? "conv" : "linear");
  }

  // Mostly the size that fits, sometimes another.
  std::int64_t size(std::int64_t right) {
    return one_in(12) ? static_cast<std::int64_t>(below(9)) : right;
  }

  at::Tensor tensor(std::vector<std::int64_t> shape) {
    for (std::int64_t& n : shape) n = size(n);
    if (one_in(15)) shape.push_back(1);
    if (one_in(20) && !shape.empty()) shape.pop_back();
    at::Tensor made = at::full(shape, one_in(30) ? NAN : 0.25);
    if (one_in(6)) made = made.to(one_in(2) ? at::kHalf : at::kBFloat16);
    if (one_in(25)) made = at::zeros(shape, one_in(2) ? at::kLong : at::kByte);
    return made;
  }

  // linear: [8, 6]; convolution: [8, 4, 3, 3]
  void add_module(testing::Tensors& tensors, const std::string& name, bool convolution) {
    const std::int64_t in = convolution ? 4 : 6, r = 2;
    using Shape = std::vector<std::int64_t>;
    const Shape kernel = convolution ? Shape{3, 3} : Shape{};
    const auto with_kernel = [&](Shape shape) {
      shape.insert(shape.end(), kernel.begin(), kernel.end());
      return shape;
    };
    const auto put = [&](const std::string& part, const Shape& shape) {
      if (!one_in(25)) tensors[name + part] = tensor(shape);
    };
    switch (below(13)) {
      case 0:
        put(".lora_down.weight", with_kernel({r, in}));
        put(".lora_up.weight", {8, r});
        if (one_in(3)) put(".lora_mid.weight", {r, r, 3, 3});
        break;
      case 1:
        for (const char* side : {"1", "2"}) {
          put(std::string(".hada_w") + side + "_a", {8, r});
          put(std::string(".hada_w") + side + "_b", {r, convolution ? in * 9 : in});
          if (one_in(4)) put(std::string(".hada_t") + side, {r, r, 3, 3});
        }
        break;
      case 2:
        put(".lokr_w1", {2, 2});
        if (one_in(2)) {
          put(".lokr_w2", with_kernel({4, in / 2}));
        } else {
          put(".lokr_w2_a", {4, r});
          put(".lokr_w2_b", {r, in / 2 * (convolution ? 9 : 1)});
        }
        if (one_in(4)) put(".lokr_t2", {r, r, 3, 3});
        break;
      case 3:
        put(".a1.weight", {in, r});
        put(".a2.weight", {r, in});
        put(".b1.weight", {8, r});
        put(".b2.weight", with_kernel({r, in}));
        break;
      case 4:
        put(".weight", {one_in(2) ? 8 : in});
        tensors[name + ".on_input"] = at::full({}, static_cast<int>(below(2)), at::kLong);
        break;
      case 5:
        put(".oft_blocks", {4, 2, 2});
        if (one_in(2)) put(".rescale", {8, 1});
        break;
      case 6:
        put(".oft_blocks", {2, 2, 4, 4});
        break;
      case 7:
        put(".diff", with_kernel({8, in}));
        if (one_in(2)) put(".diff_b", {8});
        break;
      case 8:
        put(".ia3_l", convolution ? Shape{1, in, 1, 1} : one_in(2) ? Shape{8, 1} : Shape{1, in});
        break;
      case 9:
        put(".oft_R.weight", {one_in(3) ? 1 : in / 2 * (convolution ? 9 : 1), 1});
        break;
      case 10:
        put(".oft_r", {4, 2, 2});
        if (one_in(4)) put(".w_norm", {8});
        break;
      case 11: {
        const std::int64_t width = convolution ? in * 9 : in;
        const std::int64_t stages = 1 + static_cast<std::int64_t>(below(2));
        put(".boft_R", {stages, width / 2, 2, 2});
        put(".boft_s", {8, 1});
        break;
      }
      default:
        put(".lora_A.weight", with_kernel({r, in}));
        put(".lora_B.weight", {8, r});
        if (one_in(3)) put(".lora_B.bias", {8});
        put(one_in(2) ? ".lora_magnitude_vector" : ".dora_scale",
            one_in(2) ? Shape{8, 1} : Shape{1, in});
    }
    if (one_in(2)) tensors[name + ".alpha"] = tensor({});
    if (one_in(8)) put(".dora_scale", {8, 1});
  }

  std::mt19937_64 random_;
};

// A model of two layers that files are read for.
class Reader {
 public:
  // Whether the file was taken, fitted to the model and merged.
  bool accepts(const std::filesystem::path& path) {
    const auto inspection = inspect_adapter(path);
    try {
      const auto file = AdapterFile::read(path).value_or_throw();
      EXPECT_TRUE(inspection.ok());
      const auto attached = attach(*file, layers_, {}, {.allow_partial = true});
      const AdapterList list = {{attached, AdapterScales::all(1.0)}};
      const AdapterList* const one[] = {&list};
      const nn::RowAdapters rows = row_adapters("unet", one);
      const Baker baker(layers_, {{file, AdapterScales::all(1.0)}}, true);
      for (const char* name : {"linear.weight", "conv.weight"}) {
        const auto merged = baker("unet", name, unet_.at(name));
        if (merged) {
          EXPECT_EQ(merged->sizes(), unet_.at(name).sizes());
        }
      }
      return true;
    } catch (const Failure& failure) {
      EXPECT_FALSE(failure.error().message.empty());
      EXPECT_LT(failure.error().message.size(), 3000u);
      return false;
    }
  }

 private:
  weights::testing::TemporaryFolder folder_;
  testing::Tensors unet_ = {{"linear.weight", at::ones({8, 6})},
                            {"linear.bias", at::ones({8})},
                            {"conv.weight", at::ones({8, 4, 3, 3})},
                            {"conv.bias", at::ones({8})}};
  ModelLayers layers_ = ModelLayers({{"unet", testing::network(folder_, "unet", unet_)}});
};

TEST(AdapterFuzz, TheKeptCorpusIsReadOrRefused) {
  const c10::InferenceMode no_gradients;
  Reader reader;
  const std::set<std::string> good = {"kohya.safetensors", "peft.safetensors",
                                      "loha-conv.safetensors"};
  for (const auto& [file, bytes] : fuzzing::corpus("adapter")) {
    const bool accepted = reader.accepts(file);
    if (good.contains(file.filename())) {
      EXPECT_TRUE(accepted) << file;
    }
  }
}

TEST(AdapterFuzz, NoAdapterCrashesTheReaderAndWhatItTakesIsFinite) {
  const c10::InferenceMode no_gradients;
  const weights::testing::TemporaryFolder folder;
  const auto path = folder.path() / "x.safetensors";
  Reader reader;
  std::uint64_t accepted = 0;
  const std::uint64_t runs = fuzzing::run(2, [&](std::uint64_t seed) {
    testing::write_tensors(path, Generator(seed).adapter());
    accepted += reader.accepts(path) ? 1 : 0;
  });
  // Both sides must be reached, or the generator tests nothing.
  EXPECT_GT(accepted, runs / 20);
  EXPECT_LT(accepted, runs * 19 / 20);
}

}  // namespace
}  // namespace limner::engine::lora
