#include "cli/engine_loader.h"

#include <gtest/gtest.h>

namespace limner::cli {
namespace {

// Built by CMake from engine_module_for_test.cpp, one per way to be wrong.
Error refused(const std::string& kind) {
  const auto loaded = load_engine(LIMNER_MODULES_FOR_TEST "/libengine_" + kind + ".so");
  EXPECT_FALSE(loaded.ok()) << kind;
  return loaded.ok() ? Error{} : loaded.error();
}

TEST(EngineLoader, TakesTheModuleOfItsOwnBuild) {
  const auto loaded = load_engine(LIMNER_MODULES_FOR_TEST "/libengine_same.so");
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_EQ((*loaded)->device_report(), "same");
}

TEST(EngineLoader, RefusesAModuleOfAnotherBuild) {
  for (const char* kind : {"version", "layout", "shorter"}) {
    const Error error = refused(kind);
    EXPECT_EQ(error.code, ErrorCode::kUnsupported);
    EXPECT_NE(error.message.find("is of another build"), std::string::npos) << error.message;
  }
  EXPECT_NE(refused("version").message.find("version 0.0.0"), std::string::npos);
}

TEST(EngineLoader, RefusesWhatIsNoEngine) {
  const auto loaded = load_engine("libm.so.6");
  ASSERT_FALSE(loaded.ok());
  EXPECT_NE(loaded.error().message.find("is not limner's engine"), std::string::npos);
  EXPECT_NE(refused("missing").message.find("cannot be loaded"), std::string::npos);
}

}  // namespace
}  // namespace limner::cli
