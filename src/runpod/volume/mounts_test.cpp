#include "runpod/volume/mounts.h"

#include <gtest/gtest.h>

namespace limner::runpod {
namespace {

// As a container of the platform has it, with a volume whose name holds a space.
constexpr const char* kText =
    "600 500 0:50 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/a\n"
    "601 600 0:52 / /proc rw,nosuid - proc proc rw\n"
    "620 600 0:99 /vol /runpod-volume rw shared:3 master:4 - nfs4 server:/my\\040volume rw\n"
    "not a line of it\n"
    "621 620 0:77 / /runpod-volume/models ro - tmpfs tmpfs ro\n";

TEST(Mounts, AreReadWithOptionalFieldsAndEscapes) {
  const auto mounts = parse_mounts(kText);
  ASSERT_EQ(mounts.size(), 4u);
  EXPECT_EQ(mounts[0].point, "/");
  EXPECT_EQ(mounts[2].point, "/runpod-volume");
  EXPECT_EQ(mounts[2].type, "nfs4");
  EXPECT_EQ(mounts[2].source, "server:/my volume");
  EXPECT_EQ(mounts[3].device, "0:77");
}

TEST(Mounts, APathBelongsToTheNearestOneAboveIt) {
  const auto mounts = parse_mounts(kText);
  EXPECT_EQ(mount_of(mounts, "/runpod-volume/loras/a")->point, "/runpod-volume");
  EXPECT_EQ(mount_of(mounts, "/runpod-volume/models/a")->point, "/runpod-volume/models");
  EXPECT_EQ(mount_of(mounts, "/runpod-volume-2")->point, "/");
  EXPECT_EQ(mount_of({}, "/x"), nullptr);
}

TEST(Mounts, ThisProcessHasSome) {
  EXPECT_FALSE(mounts_of_this_process().empty());
}

}  // namespace
}  // namespace limner::runpod
