"""A robot in a furnished house, without ROS and without a simulator: what `gsemsplat demo --house` drives.

World frame: that of the house (`rooms/house.py`), x and y along the walls, z up, origin on the floor, metres.

floor_plan: where walls and furniture stand, and how far it is to them
route: the shortest free way
motion: the poses of the robot on a way, and their times
robot: its measures and its stereo camera
film: the moving picture of a drive
world: what its camera sees, and where the things of a name stand
"""
