"""A quadrotor that flies between obstacles."""
