// Structure-aware fuzzing of the adapter reader: files of every kind with parts missing, shapes and
// types wrong, names broken and numbers that are none are read and fitted to a model.
// Deterministic; LIMNER_FUZZ_SECONDS makes it run longer and LIMNER_FUZZ_SEED start elsewhere.
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <random>

#include "engine/lora/attach.h"
#include "engine/lora/bake.h"
#include "engine/lora/inspect.h"
#include "engine/lora/testing.h"

namespace limner::engine::lora {
namespace {

double setting(const char* name, double fallback) {
  const char* text = std::getenv(name);
  return text ? std::atof(text) : fallback;
}

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
    switch (below(9)) {
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
      default:
        put(".lora_A.weight", with_kernel({r, in}));
        put(".lora_B.weight", {8, r});
        put(one_in(2) ? ".lora_magnitude_vector" : ".dora_scale",
            one_in(2) ? Shape{8, 1} : Shape{1, in});
    }
    if (one_in(2)) tensors[name + ".alpha"] = tensor({});
    if (one_in(8)) put(".dora_scale", {8, 1});
  }

  std::mt19937_64 random_;
};

TEST(AdapterFuzz, NoAdapterCrashesTheReaderAndWhatItTakesIsFinite) {
  const c10::InferenceMode no_gradients;
  const weights::testing::TemporaryFolder folder;
  const testing::Tensors unet = {{"linear.weight", at::ones({8, 6})},
                                 {"linear.bias", at::ones({8})},
                                 {"conv.weight", at::ones({8, 4, 3, 3})},
                                 {"conv.bias", at::ones({8})}};
  const ModelLayers layers({{"unet", testing::network(folder, "unet", unet)}});
  Generator generator(static_cast<std::uint64_t>(setting("LIMNER_FUZZ_SEED", 1)));
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::duration<double>(setting("LIMNER_FUZZ_SECONDS", 2));
  std::uint64_t accepted = 0, refused = 0;
  const auto path = folder.path() / "x.safetensors";
  while (std::chrono::steady_clock::now() < end) {
    testing::write_tensors(path, generator.adapter());
    const auto inspection = inspect_adapter(path);
    try {
      const auto file = AdapterFile::read(path).value_or_throw();
      ASSERT_TRUE(inspection.ok());
      const auto attached = attach(*file, layers, {}, {.allow_partial = true});
      const AdapterList list = {{attached, AdapterScales::all(1.0)}};
      const AdapterList* const one[] = {&list};
      const nn::RowAdapters rows = row_adapters("unet", one);
      const Baker baker(layers, {{file, AdapterScales::all(1.0)}}, true);
      for (const char* name : {"linear", "conv"}) {
        const auto merged =
            baker("unet", std::string(name) + ".weight", unet.at(std::string(name) + ".weight"));
        if (merged) {
          ASSERT_EQ(merged->sizes(), unet.at(std::string(name) + ".weight").sizes());
        }
      }
      ++accepted;
    } catch (const Failure& failure) {
      ASSERT_FALSE(failure.error().message.empty());
      ASSERT_LT(failure.error().message.size(), 3000u);
      ++refused;
    }
  }
  RecordProperty("runs", static_cast<int>(accepted + refused));
  // Both sides must be reached, or the generator tests nothing.
  EXPECT_GT(accepted, (accepted + refused) / 20);
  EXPECT_GT(refused, (accepted + refused) / 20);
}

}  // namespace
}  // namespace limner::engine::lora
