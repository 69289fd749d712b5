// Holds the precompiled ATen header that the torch rooms share; see cmake/room.cmake.
